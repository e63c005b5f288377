# What Terraform installs into the cluster, through the helm provider of your configuration. All off: nothing is asked of it.

variable "install_node_autoscaling" {
  description = "Install what takes GPU pools from zero and back: NVIDIA's device plugin, and the cluster autoscaler or Karpenter with its node pools."
  type        = bool
  default     = false
  nullable    = false
}

variable "install_ingress_nginx" {
  description = "Install the ingress controller ingress-nginx."
  type        = bool
  default     = false
  nullable    = false
}

variable "ingress_nginx_service_annotations" {
  description = "Annotations of its Service, for example { \"service.beta.kubernetes.io/aws-load-balancer-internal\" = \"true\" }."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = length(var.ingress_nginx_service_annotations) == 0 || var.install_ingress_nginx
    error_message = "ingress_nginx_service_annotations is set, but install_ingress_nginx is false, so nobody would read them. Set install_ingress_nginx = true, or remove them."
  }
}

variable "install_sie" {
  description = "Install the chart sie-cluster, with the output helm_values."
  type        = bool
  default     = false
  nullable    = false
}

variable "sie_chart" {
  description = "The chart: its address in a registry, or a folder."
  type        = string
  default     = "oci://ghcr.io/superlinked/charts/sie-cluster"
  nullable    = false
}

variable "sie_chart_version" {
  description = "Version of the chart."
  type        = string
  default     = "0.1.10"
  nullable    = false
}

variable "sie_image_registry" {
  description = "Where the images are (imageRegistry of the chart). Null: the registry that the module makes."
  type        = string
  default     = null
}

variable "sie_values" {
  description = "Further values of the chart, as YAML, which win."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "chart_versions" {
  description = "Versions of the other charts, by name (nvidia-device-plugin, cluster-autoscaler, karpenter, ingress-nginx), instead of those that the module knows."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = length(setsubtract(keys(var.chart_versions), ["nvidia-device-plugin", "cluster-autoscaler", "karpenter", "ingress-nginx"])) == 0
    error_message = "chart_versions names ${join(", ", keys(var.chart_versions))}. Known are nvidia-device-plugin, cluster-autoscaler, karpenter and ingress-nginx."
  }
}
