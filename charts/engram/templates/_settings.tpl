{{/* Every setting of the operator as a variable of its container; tests compare them with the operator's own list. */}}
{{- define "engram.settings" -}}
{{- $jobs := .Values.jobs }}
{{- $operator := .Values.operator }}
{{- $settings := list
  (list "IMAGE" (include "engram.image" (dict "root" . "image" $jobs.image)))
  (list "IMAGE_PULL_POLICY" $jobs.image.pullPolicy)
  (list "NAMESPACES" (join "," .Values.watchNamespaces))
  (list "CHECKPOINT_SIZE" $jobs.checkpoint.size)
  (list "CHECKPOINT_STORAGE_CLASS" $jobs.checkpoint.storageClassName)
  (list "ALLOW_SERVICE_ACCOUNTS" $jobs.allowServiceAccounts)
  (list "NETWORK_POLICY" $jobs.networkPolicy)
  (list "OWN_NAMESPACE" .Release.Namespace)
  (list "PROMETHEUS_NAMESPACE" .Values.prometheus.namespace)
  (list "CLUSTER_DOMAIN" $operator.clusterDomain)
  (list "CONCURRENCY" $operator.concurrency)
  (list "RESYNC_SECONDS" $operator.resyncSeconds)
  (list "POLL_SECONDS" $operator.pollSeconds)
  (list "STATUS_SECONDS" $operator.statusSeconds)
  (list "OBJECTS_SECONDS" $operator.objectsSeconds)
  (list "REQUEST_SECONDS" $operator.requestSeconds)
  (list "CONNECT_SECONDS" $operator.connectSeconds)
  (list "HEALTH_PORT" $operator.port)
  (list "LOG_LEVEL" $operator.logLevel)
}}
{{- range $settings }}
- {name: ENGRAM_OPERATOR_{{ first . }}, value: {{ last . | toString | quote }}}
{{- end }}
{{- end }}
