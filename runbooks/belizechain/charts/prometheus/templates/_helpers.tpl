{{- define "selector" -}}
app.kubernetes.io/name: prometheus
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/component: monitoring
app.kubernetes.io/part-of: {{ .Values.partOf }}
{{- end }}
