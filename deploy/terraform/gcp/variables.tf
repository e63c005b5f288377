variable "project_id" {
  description = "Project of everything that is made here."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id is \"${var.project_id}\". Give the id, not the name or number: 6 to 30 lower-case letters, digits and hyphens, a letter first (`gcloud projects list` shows it)."
  }
}

variable "region" {
  description = "Region of the cluster."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region is \"${var.region}\". Give a region such as \"us-central1\" (a zone such as \"us-central1-a\" is not one): the cluster is regional."
  }
}

variable "cluster_name" {
  description = "Name of the cluster, in front of the name of everything else."
  type        = string
  default     = "sie-cluster"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]*[a-z0-9])?$", var.cluster_name)) && length(var.cluster_name) <= 21
    error_message = "cluster_name is \"${var.cluster_name}\" (${length(var.cluster_name)} characters). Use at most 21 lower-case letters, digits and hyphens, a letter first: names of service accounts are made of it, and they may have 30 characters."
  }
}

variable "kubernetes_version" {
  description = "Oldest version of the control plane, such as \"1.33\". Null: the release channel decides."
  type        = string
  default     = null

  validation {
    condition     = var.kubernetes_version == null || can(regex("^1\\.(3[0-9]|[4-9][0-9])([.-].*)?$", var.kubernetes_version))
    error_message = "kubernetes_version is \"${coalesce(var.kubernetes_version, "null")}\". Give 1.30 or later, such as \"1.33\", or null to leave it to the release channel."
  }
}

variable "release_channel" {
  description = "How soon GKE upgrades the cluster: RAPID, REGULAR, STABLE or EXTENDED."
  type        = string
  default     = "REGULAR"
  nullable    = false

  validation {
    condition     = contains(["RAPID", "REGULAR", "STABLE", "EXTENDED"], var.release_channel)
    error_message = "release_channel is \"${var.release_channel}\". Use \"RAPID\", \"REGULAR\", \"STABLE\" or \"EXTENDED\"."
  }
}

variable "maintenance_window" {
  description = "When GKE may upgrade machines, as times in UTC (RFC 3339) and a recurrence (RFC 5545); 48 hours in 32 days at least. Null: any time."
  type = object({
    start_time = string
    end_time   = string
    recurrence = string
  })
  default = {
    start_time = "2025-01-04T02:00:00Z"
    end_time   = "2025-01-04T10:00:00Z"
    recurrence = "FREQ=WEEKLY;BYDAY=SA,SU"
  }

  validation {
    condition     = var.maintenance_window == null || (can(timecmp(var.maintenance_window.start_time, var.maintenance_window.end_time)) && can(regex("^FREQ=", var.maintenance_window.recurrence)))
    error_message = "maintenance_window is ${jsonencode(var.maintenance_window)}. Give start_time and end_time such as \"2025-01-04T02:00:00Z\" and a recurrence such as \"FREQ=WEEKLY;BYDAY=SA,SU\", or null for any time."
  }

  validation {
    condition     = try(timecmp(var.maintenance_window.start_time, var.maintenance_window.end_time) < 0, true)
    error_message = "maintenance_window ends at ${try(var.maintenance_window.end_time, "")}, before it starts at ${try(var.maintenance_window.start_time, "")}. Exchange them."
  }
}

variable "deletion_protection" {
  description = "True: `terraform destroy` fails, on the cluster itself and on a bucket that holds models. Set it to false and apply before you destroy."
  type        = bool
  default     = true
  nullable    = false
}

variable "enable_apis" {
  description = "Turn on the APIs that are needed. They stay on after `terraform destroy`."
  type        = bool
  default     = false
  nullable    = false
}

variable "deployer_service_account" {
  description = "E-mail of the service account that runs Terraform, so that it may use the machines' account. Empty: you have that role, as owners and editors do."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.deployer_service_account == "" || can(regex("^[^@:]+@[^@]+\\.gserviceaccount\\.com$", var.deployer_service_account))
    error_message = "deployer_service_account is \"${var.deployer_service_account}\". Give the e-mail alone, such as \"terraform@my-project.iam.gserviceaccount.com\"."
  }
}

variable "labels" {
  description = "Labels of everything that can have some, for bills."
  type        = map(string)
  default     = { managed-by = "terraform", app = "sie" }
  nullable    = false

  validation {
    condition     = length(var.labels) <= 32 && alltrue([for key, value in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))])
    error_message = "labels is ${jsonencode(var.labels)}. Google takes at most 32 labels here, with keys and values of at most 63 lower-case letters, digits, _ and -, keys with a letter first."
  }
}

# ---- who reaches the API ----

variable "authorized_networks" {
  description = "Networks that reach the Kubernetes API over the internet. Empty: none does; the API has a private address only."
  type = list(object({
    cidr_block   = string
    display_name = optional(string, "")
  }))
  default  = []
  nullable = false

  validation {
    condition     = alltrue([for network in var.authorized_networks : can(cidrhost(network.cidr_block, 0)) && can(regex("/([89]|[12][0-9]|3[0-2])$", network.cidr_block)) && !strcontains(network.cidr_block, ":")])
    error_message = "authorized_networks holds ${jsonencode(var.authorized_networks[*].cidr_block)}. Give IPv4 networks of /8 or narrower, such as \"203.0.113.7/32\". The whole internet is not an allowlist: leave the list empty for a private API, or set enable_dns_endpoint."
  }
}

variable "private_networks" {
  description = "Networks outside the VPC that reach the private address of the API, through a VPN, a peering or an interconnect."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for cidr in var.private_networks : can(cidrhost(cidr, 0)) && can(regex("/([89]|[12][0-9]|3[0-2])$", cidr)) && !strcontains(cidr, ":")])
    error_message = "private_networks holds ${jsonencode(var.private_networks)}. Give IPv4 networks of /8 or narrower, such as \"192.168.0.0/16\"."
  }
}

variable "enable_dns_endpoint" {
  description = "Reach the API from anywhere by a name of Google's front end, which lets in only whom IAM gives container.clusters.connect. No address is open."
  type        = bool
  default     = false
  nullable    = false
}

variable "rbac_security_group" {
  description = "Google group whose groups may be named in Kubernetes roles. Null: roles name accounts only."
  type        = string
  default     = null

  validation {
    condition     = var.rbac_security_group == null || can(regex("^gke-security-groups@[a-z0-9.-]+$", var.rbac_security_group))
    error_message = "rbac_security_group is \"${coalesce(var.rbac_security_group, "null")}\". GKE takes a group named gke-security-groups of your domain, such as \"gke-security-groups@example.com\"."
  }
}

variable "enable_private_nodes" {
  description = "Machines without public addresses."
  type        = bool
  default     = true
  nullable    = false
}

variable "master_ipv4_cidr_block" {
  description = "Addresses of the control plane, a /28 that nothing else uses."
  type        = string
  default     = "172.16.0.0/28"
  nullable    = false

  validation {
    condition     = can(cidrhost(var.master_ipv4_cidr_block, 0)) && endswith(var.master_ipv4_cidr_block, "/28")
    error_message = "master_ipv4_cidr_block is \"${var.master_ipv4_cidr_block}\". Give a private /28, such as \"172.16.0.0/28\"."
  }
}

# ---- keys, logs, metrics ----

variable "kms_key_name" {
  description = "Cloud KMS key that encrypts Kubernetes secrets in the control plane, in full (projects/P/locations/REGION/keyRings/R/cryptoKeys/K). Null: Google's own keys alone."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_name == null || can(regex("^projects/[^/]+/locations/${var.region}/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key_name))
    error_message = "kms_key_name is \"${coalesce(var.kms_key_name, "null")}\". Give the full name of a key in the cluster's region: projects/PROJECT/locations/${var.region}/keyRings/RING/cryptoKeys/KEY."
  }
}

variable "disk_kms_key_name" {
  description = "Cloud KMS key of the machines' disks, in full. Null: Google's own keys."
  type        = string
  default     = null
}

variable "enable_cloud_logging" {
  description = "Stream logs of the cluster and of what runs in it to Cloud Logging. False: none is."
  type        = bool
  default     = true
  nullable    = false
}

variable "enable_managed_prometheus" {
  description = "Google Cloud Managed Service for Prometheus. The chart brings a Prometheus of its own, which the autoscaler asks."
  type        = bool
  default     = false
  nullable    = false
}
