{{- define "selector" -}}
app.kubernetes.io/name: openbao
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/component: secrets
app.kubernetes.io/part-of: {{ .Values.partOf }}
{{- end }}
