{{- define "selector" -}}
app.kubernetes.io/name: ipfs
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/component: data
app.kubernetes.io/part-of: {{ .Values.partOf }}
{{- end }}
