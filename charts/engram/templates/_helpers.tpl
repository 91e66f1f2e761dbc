{{/* Start of all names. */}}
{{- define "engram.name" -}}
{{ .Values.fullnameOverride | default .Release.Name }}
{{- end }}

{{/* Name of what belongs to the operator. */}}
{{- define "engram.operator" -}}
{{ include "engram.name" . }}-operator
{{- end }}

{{- define "engram.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "engram.operator" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* What selects the operator's pod. Its name is fixed: the NetworkPolicies that it makes for jobs let it in by that. */}}
{{- define "engram.selector" -}}
app.kubernetes.io/name: engram-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of the operator's pod: none that changes with the chart alone, which would restart it. */}}
{{- define "engram.podLabels" -}}
{{ include "engram.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: engram
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "engram.labels" -}}
{{ include "engram.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Reference of the image .image: registry, repository, and digest or tag. Takes a dict of root and image. */}}
{{- define "engram.image" -}}
{{- with .root.Values.imageRegistry }}{{ trimSuffix "/" . }}/{{ end }}
{{- .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Selects Prometheus' pods, in its namespace or in any. */}}
{{- define "engram.prometheusPeer" -}}
{{- if .Values.prometheus.namespace -}}
namespaceSelector:
  matchLabels: {kubernetes.io/metadata.name: {{ .Values.prometheus.namespace }}}
{{- else -}}
namespaceSelector: {}
{{- end }}
podSelector:
  matchLabels: {app.kubernetes.io/name: prometheus}
{{- end }}
