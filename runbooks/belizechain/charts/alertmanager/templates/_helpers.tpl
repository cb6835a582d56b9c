{{- define "selector" -}}
app.kubernetes.io/name: alertmanager
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/component: monitoring
app.kubernetes.io/part-of: {{ .Values.partOf }}
{{- end }}

{{- define "messages" -}}
slack_configs:
  - channel: {{ .values.slack.channel | toJson }}
    title: '[{{ "{{ .Status | toUpper }}" }}] {{ "{{ .CommonLabels.alertname }}" }}'
    text: '{{ "{{ range .Alerts }}{{ .Annotations.summary }} {{ .Annotations.action }} {{ .Labels.SortedPairs.Values | join \" \" }}{{ \"\\n\" }}{{ end }}" }}'
    send_resolved: true
email_configs:
  - to: {{ .values.smtp.to | toJson }}
    headers: {Subject: '[{{ "{{ .Status | toUpper }}" }}] {{ "{{ .CommonLabels.alertname }}" }} {{ "{{ .CommonLabels.runbook_test }}" }}'}
    send_resolved: true
    {{- if .tls }}
    tls_config: {{ .tls }}
    {{- end }}
{{- end }}
