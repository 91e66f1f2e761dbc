"""One module a file format, with functions `load_*(root) -> DataSet` that `engram.data.registry` names."""
