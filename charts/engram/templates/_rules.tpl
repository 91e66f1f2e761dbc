{{/*
What the operator may do in each namespace that it watches. tests/control/test_deploy.py runs the operator with exactly
these rights, and checks that it needs them all.
*/}}
{{- define "engram.rules" -}}
# The jobs: seen, and deleted when spec.ttlSecondsAfterFinished says so. Their spec is never written.
- apiGroups: [engram.dev]
  resources: [federatedincrementaljobs]
  verbs: [get, list, watch, delete]
# The job's status, by merge patch.
- apiGroups: [engram.dev]
  resources: [federatedincrementaljobs/status]
  verbs: [patch]
# Aggregator, worker groups and report are batch Jobs: made once, suspended and scaled by patch, deleted by
# cleanPodPolicy. Their pods are watched and never touched: Kubernetes makes and removes them.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# The report's pod holds no token: the operator reads what it prints.
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
# What pods dial, mount and keep, by server-side apply (patch, and create for what is not there yet). Read by
# name: nothing here is listed or watched.
- apiGroups: [""]
  resources: [services, configmaps, persistentvolumeclaims]
  verbs: [get, create, patch]
# The job's key and its workers' tokens; of a key that was lost, the tokens go before there is a new one. RBAC
# cannot say "only names of ours", so never list and never watch.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
# One Event a transition; listing shows why a quota, Pod Security or a volume keeps a pod from starting.
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
{{- if .Values.jobs.networkPolicy }}
# Who may talk to a job's aggregator.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch]
{{- end }}
{{- end }}
