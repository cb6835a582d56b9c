{{- define "selector" -}}
app.kubernetes.io/name: chain
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/component: core
app.kubernetes.io/part-of: {{ .Values.partOf }}
{{- end }}
