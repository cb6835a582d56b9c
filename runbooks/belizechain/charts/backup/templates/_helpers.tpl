{{- define "selector" -}}
app.kubernetes.io/name: backup
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/component: data
app.kubernetes.io/part-of: {{ .Values.partOf }}
{{- end }}

{{- define "configuration" -}}
{{- $database := .Values.database -}}
{{- $source := dict "namespace" .Release.Namespace "pod" $database.pod "database" $database.name "user" $database.user -}}
{{- $where := dict "host" $database.host "port" $database.port "bucket" (required "store.bucket: which bucket" .Values.store.bucket) "prefix" .Values.store.prefix -}}
{{- $store := dict "object_store" .Values.store.kind "endpoint" .Values.store.endpoint "region" .Values.store.region "account" .Values.store.account -}}
{{- $folders := dict "credentials" "/secrets/database" "keys" "/secrets/keys" "memory" "/memory" -}}
{{- with .Values.secrets.store }}{{ $_ := set $folders "store_credentials" "/secrets/store" }}{{ end -}}
{{- merge (dict "source" $source "proof" .Values.proof "seconds" .Values.seconds) $where $store $folders | toJson -}}
{{- end }}

{{- define "job" -}}
backoffLimit: 2
# The engine stops itself before: then it says why.
activeDeadlineSeconds: {{ add .Values.seconds 300 }}
template:
  metadata:
    labels: {{- include "labels" . | nindent 6 }}
    annotations:
      sidecar.istio.io/nativeSidecar: "true"   # ends with the job
      checksum/config: {{ include "configuration" . | sha256sum }}
  spec:
    restartPolicy: Never
    serviceAccountName: backup
    automountServiceAccountToken: false
    enableServiceLinks: false
    securityContext:
      runAsNonRoot: true
      runAsUser: {{ .Values.user }}
      runAsGroup: {{ .Values.user }}
      fsGroup: {{ .Values.user }}
      seccompProfile: {type: RuntimeDefault}
    containers:
      - name: backup
        image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
        imagePullPolicy: {{ .Values.image.pullPolicy }}
        args: [-m, engine.scheduled]
        env:
          - {name: PATH, value: "/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin"}
          - {name: HOME, value: /memory}
          - {name: TMPDIR, value: /scratch}
          - {name: PYTHONDONTWRITEBYTECODE, value: "1"}
          - {name: JOB_NAME, valueFrom: {fieldRef: {fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"}}}
        resources: {{- toYaml .Values.resources | nindent 10 }}
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
        volumeMounts:
          - {name: config, mountPath: /etc/runbook, readOnly: true}
          - {name: database, mountPath: /secrets/database, readOnly: true}
          - {name: keys, mountPath: /secrets/keys, readOnly: true}
          {{- if .Values.secrets.store }}
          - {name: store, mountPath: /secrets/store, readOnly: true}
          {{- end }}
          - {name: memory, mountPath: /memory}
          - {name: scratch, mountPath: /scratch}
    volumes:
      - {name: config, configMap: {name: backup}}
      - {name: database, secret: {secretName: {{ .Values.secrets.database }}, defaultMode: 0440}}
      - {name: keys, secret: {secretName: {{ .Values.secrets.keys }}, defaultMode: 0440}}
      {{- if .Values.secrets.store }}
      - {name: store, secret: {secretName: {{ .Values.secrets.store }}, defaultMode: 0440}}
      {{- end }}
      - {name: memory, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
      - {name: scratch, emptyDir: {sizeLimit: {{ .Values.scratch }}}}
{{- end }}
