{{/*
Names are fixed. A cluster has one Twinspan, but for namespaced mode: a second release is refused by Helm, which says whose the objects
are, before it would be refused by the first one's Lease; and every command of the documents can be copied as it stands.
*/}}
{{- define "twinspan.name" -}}
twinspan
{{- end }}

{{/*
Names of objects that belong to no namespace, and of roles in the namespaces of namespaced mode, where several releases live side by
side: each has the release's namespace in its names.
*/}}
{{- define "twinspan.clusterName" -}}
{{ include "twinspan.name" . }}{{ if .Values.namespaced.enabled }}-{{ .Release.Namespace }}{{ end }}
{{- end }}

{{- define "twinspan.selectorLabels" -}}
app.kubernetes.io/name: twinspan
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "twinspan.ownLabels" -}}
{{ include "twinspan.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "twinspan.labels" -}}
{{ include "twinspan.ownLabels" . }}
{{- range $key, $value := .Values.commonLabels }}
{{ quote $key }}: {{ quote $value }}
{{- end }}
{{- end }}

{{/* Labels and annotations of an object without any of its own. */}}
{{- define "twinspan.metadata" -}}
labels:
  {{- include "twinspan.labels" . | nindent 2 }}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "twinspan.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "twinspan.name" .) }}
{{- end }}

{{/*
Annotations of an object that stays when it leaves the release or the release goes. Argo CD obeys Helm's word where an Application is
deleted, and ignores it where it prunes (argo-cd#17819). Flux's word is for those who commit the output of `helm template`.
*/}}
{{- define "twinspan.keptAnnotations" -}}
helm.sh/resource-policy: keep
argocd.argoproj.io/sync-options: Prune=false,Delete=false
kustomize.toolkit.fluxcd.io/prune: disabled
{{- end }}

{{- define "twinspan.image" -}}
{{- with .Values.image -}}
{{- with $.Values.global.imageRegistry }}{{ . }}/{{ end -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ with .digest }}@{{ . }}{{ end }}
{{- end }}
{{- end }}

{{/*
Keep every service mesh's sidecar or node proxy away. A proxy accepts a connection before it has one itself, so each probe of a lost
instance would find it alive, and the dead would stay in DNS.
*/}}
{{- define "twinspan.noSidecarLabels" -}}
sidecar.istio.io/inject: "false"
istio.io/dataplane-mode: none
kuma.io/sidecar-injection: disabled
{{- end }}

{{- define "twinspan.noSidecarAnnotations" -}}
linkerd.io/inject: disabled
consul.hashicorp.com/connect-inject: "false"
openservicemesh.io/sidecar-injection: disabled
{{- end }}

{{/* What of the cluster the operator looks at and serves, as variables, so that `kubectl exec … -- twinspan doctor` has them too. */}}
{{- define "twinspan.reach" -}}
{{- with .Values.serviceCIDRs }}
- name: TWINSPAN_SERVICE_CIDRS
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.servedRegistries }}
- name: TWINSPAN_REGISTRIES
  value: {{ join "," . | quote }}
{{- end }}
{{- if .Values.namespaced.enabled }}
- name: TWINSPAN_WATCH_NAMESPACES
  value: {{ join "," .Values.namespaced.namespaces | quote }}
- name: TWINSPAN_CLUSTER_ID
  value: {{ quote .Values.namespaced.clusterID }}
- name: TWINSPAN_POD_CIDRS
  value: {{ join "," .Values.namespaced.podCIDRs | quote }}
- name: TWINSPAN_NODE_CIDRS
  value: {{ join "," .Values.namespaced.nodeCIDRs | quote }}
{{- end }}
{{- end }}

{{/* Where the page listens; empty where the operator's own default, 127.0.0.1:8082, is meant. */}}
{{- define "twinspan.pageAddress" -}}
{{- $port := int64 .Values.page.port -}}
{{- if not .Values.page.enabled -}}
off
{{- else if .Values.page.service.enabled -}}
{{ .Values.listen }}:{{ $port }}
{{- else if ne $port 8082 -}}
127.0.0.1:{{ $port }}
{{- end -}}
{{- end }}

{{- define "twinspan.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "twinspan.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "twinspan.imagePullSecrets" -}}
{{- with concat .Values.image.pullSecrets .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ if kindIs "string" . }}{{ quote . }}{{ else }}{{ quote .name }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "twinspan.scheduling" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
{{ toYaml . }}
{{- end }}
{{- with include "twinspan.filled" .Values.affinity | fromYaml }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* How names are found, of etcd's members above all. */}}
{{- define "twinspan.names" -}}
dnsPolicy: {{ .Values.dnsPolicy }}
{{- with include "twinspan.filled" .Values.dnsConfig | fromYaml }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The parts of an object that hold something. */}}
{{- define "twinspan.filled" -}}
{{- $filled := dict }}
{{- range $key, $value := . }}
{{- if $value }}
{{- $_ := set $filled $key $value }}
{{- end }}
{{- end }}
{{- toYaml $filled }}
{{- end }}
