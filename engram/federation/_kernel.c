/* What the aggregator does to every number of a model, each in one pass over memory.
 *
 * numpy needs a pass for each operation of an expression, most of them over float64 copies. Every function here
 * rounds where numpy's expression rounds (so no fused multiply-add, see hatch_build.py), hence both give the same
 * bits. engram/federation/kernel.py says what is called when this module is not there.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* the stable ABI of Python 3.11, the first with the buffer protocol in it */
#include <Python.h>

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__)
/* The loader picks the widest that this processor has. */
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

#define UNFINITE 0x7f800000u /* bits of the float32 infinity; every NaN without its sign is above */

WIDE static void
add_terms(double *restrict total, const float *restrict term, Py_ssize_t size, double samples, double magic)
{
    for (Py_ssize_t i = 0; i < size; i++)
        total[i] += ((double)term[i] * samples + magic) - magic;
}

WIDE static void
set_terms(double *restrict total, const float *restrict term, Py_ssize_t size, double samples, double magic)
{
    for (Py_ssize_t i = 0; i < size; i++)
        total[i] = ((double)term[i] * samples + magic) - magic;
}

WIDE static void
divide_by(float *restrict quotient, const double *restrict total, Py_ssize_t size, double samples)
{
    for (Py_ssize_t i = 0; i < size; i++)
        quotient[i] = (float)(total[i] / samples);
}

/* Bits of floats without their signs are ordered as the magnitudes are. */
WIDE static uint32_t
largest_bits(const uint32_t *restrict term, Py_ssize_t size)
{
    uint32_t found = 0;
    for (Py_ssize_t i = 0; i < size; i++) {
        uint32_t bits = term[i] & 0x7fffffffu;
        found = bits > found ? bits : found;
    }
    return found;
}

/* Return whether numbers may be read in place: vector code may count on it. */
static int
aligned(const Py_buffer *buffer)
{
    return (uintptr_t)buffer->buf % (uintptr_t)buffer->itemsize == 0;
}

/* Set a ValueError and return 0 unless one holds as many float64 as the other holds float32. */
static int
fit(const Py_buffer *doubles, const Py_buffer *floats)
{
    if (doubles->itemsize == sizeof(double) && floats->itemsize == sizeof(float)
        && doubles->len / doubles->itemsize == floats->len / floats->itemsize
        && aligned(doubles) && aligned(floats))
        return 1;
    PyErr_SetString(PyExc_ValueError, "needs as many float64 as float32, aligned");
    return 0;
}

PyDoc_STRVAR(add_doc,
"add(total, term, samples, magic, begun)\n--\n\n"
"Add term x samples, rounded by magic, to total; put it there unless begun.\n\n"
"float64 and float32, contiguous, aligned and of one size. Raises ValueError.");

static PyObject *
add(PyObject *self, PyObject *arguments)
{
    Py_buffer total, term;
    double samples, magic;
    int begun, fitting;

    if (!PyArg_ParseTuple(arguments, "w*y*ddp:add", &total, &term, &samples, &magic, &begun))
        return NULL;
    if ((fitting = fit(&total, &term))) {
        Py_ssize_t size = total.len / (Py_ssize_t)sizeof(double);
        Py_BEGIN_ALLOW_THREADS
        (begun ? add_terms : set_terms)(total.buf, term.buf, size, samples, magic);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&term);
    PyBuffer_Release(&total);
    if (!fitting)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(divide_doc,
"divide(quotient, total, samples)\n--\n\n"
"Write total / samples, rounded to float32, to quotient.\n\n"
"float32 and float64, contiguous, aligned and of one size. Raises ValueError.");

static PyObject *
divide(PyObject *self, PyObject *arguments)
{
    Py_buffer quotient, total;
    double samples;
    int fitting;

    if (!PyArg_ParseTuple(arguments, "w*y*d:divide", &quotient, &total, &samples))
        return NULL;
    if ((fitting = fit(&total, &quotient))) {
        Py_ssize_t size = total.len / (Py_ssize_t)sizeof(double);
        Py_BEGIN_ALLOW_THREADS
        divide_by(quotient.buf, total.buf, size, samples);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&total);
    PyBuffer_Release(&quotient);
    if (!fitting)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(largest_doc,
"largest(term)\n--\n\n"
"Return the largest magnitude in float32 numbers, 0 of none; infinity when one is not finite.\n\n"
"Contiguous and aligned. Raises ValueError.");

static PyObject *
largest(PyObject *self, PyObject *arguments)
{
    Py_buffer term;
    uint32_t bits = 0;
    float value;

    if (!PyArg_ParseTuple(arguments, "y*:largest", &term))
        return NULL;
    if (term.itemsize != sizeof(float) || !aligned(&term)) {
        PyBuffer_Release(&term);
        PyErr_SetString(PyExc_ValueError, "needs float32, aligned");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    bits = largest_bits(term.buf, term.len / (Py_ssize_t)sizeof(float));
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&term);
    if (bits > UNFINITE)
        bits = UNFINITE;
    memcpy(&value, &bits, sizeof value);
    return PyFloat_FromDouble(value);
}

static PyMethodDef functions[] = {
    {"add", add, METH_VARARGS, add_doc},
    {"divide", divide, METH_VARARGS, divide_doc},
    {"largest", largest, METH_VARARGS, largest_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "engram.federation._kernel",
    .m_doc = "Passes over the numbers of a model, compiled.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
