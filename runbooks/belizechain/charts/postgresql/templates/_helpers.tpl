{{- define "selector" -}}
app.kubernetes.io/name: postgresql
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/component: data
app.kubernetes.io/part-of: {{ .Values.partOf }}
{{- end }}
