variable "region" {
  description = "Region of the cluster, the same as the provider's."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is \"${var.region}\". Give the code of a region, such as \"eu-central-1\" (a zone such as \"eu-central-1a\" is not one)."
  }
}

variable "cluster_name" {
  description = "Name of the cluster, in front of the name of everything else."
  type        = string
  default     = "sie-cluster"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]*[a-z0-9])?$", var.cluster_name)) && length(var.cluster_name) <= 21 && !strcontains(var.cluster_name, "--")
    error_message = "cluster_name is \"${var.cluster_name}\" (${length(var.cluster_name)} characters). Use at most 21 lower-case letters, digits and single hyphens, a letter first: names of repositories and buckets are made of it, and they may not be longer."
  }
}

variable "kubernetes_version" {
  description = "Version of Kubernetes, such as \"1.34\". Null: the newest that EKS has when the cluster is made; afterwards it stays until you name another."
  type        = string
  default     = null

  validation {
    condition     = var.kubernetes_version == null || can(regex("^1\\.(3[0-9]|[4-9][0-9])$", var.kubernetes_version))
    error_message = "kubernetes_version is \"${coalesce(var.kubernetes_version, "null")}\". Give major and minor number, 1.30 or later, such as \"1.34\", or null for the newest."
  }
}

variable "upgrade_support_type" {
  description = "What EKS does with a version at the end of its support: STANDARD upgrades the cluster, EXTENDED keeps the version for six times the price."
  type        = string
  default     = "STANDARD"
  nullable    = false

  validation {
    condition     = contains(["STANDARD", "EXTENDED"], var.upgrade_support_type)
    error_message = "upgrade_support_type is \"${var.upgrade_support_type}\". Use \"STANDARD\" or \"EXTENDED\"."
  }
}

variable "deletion_protection" {
  description = "True: `terraform destroy` fails while the bucket holds models or the registry holds images that you pushed. (GKE protects the cluster as well; EKS cannot with this provider.)"
  type        = bool
  default     = true
  nullable    = false
}

variable "tags" {
  description = "Tags of everything that can have some, machines and disks included."
  type        = map(string)
  default     = { managed-by = "terraform", app = "sie" }
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "aws:")]) && length(var.tags) <= 20
    error_message = "tags holds ${length(var.tags)} tags: ${join(", ", keys(var.tags))}. Use at most 20, none of which starts with \"aws:\", which is Amazon's own."
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
    error_message = "authorized_networks holds ${jsonencode(var.authorized_networks[*].cidr_block)}. Give IPv4 networks of /8 or narrower, such as \"203.0.113.7/32\". The whole internet is not an allowlist: leave the list empty for a private API."
  }
}

variable "private_networks" {
  description = "Networks outside the VPC that reach the private address of the API, through a VPN, a peering or a transit gateway."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for cidr in var.private_networks : can(cidrhost(cidr, 0)) && can(regex("/([89]|[12][0-9]|3[0-2])$", cidr)) && !strcontains(cidr, ":")])
    error_message = "private_networks holds ${jsonencode(var.private_networks)}. Give IPv4 networks of /8 or narrower, such as \"192.168.0.0/16\"."
  }
}

variable "cluster_creator_admin" {
  description = "True: whoever runs Terraform is an administrator of the cluster. Cannot be changed later."
  type        = bool
  default     = true
  nullable    = false

  validation {
    condition     = var.cluster_creator_admin || anytrue([for entry in values(var.access_entries) : entry.policy == "admin" && length(entry.namespaces) == 0])
    error_message = "cluster_creator_admin is false and access_entries names no administrator, so nobody could use the cluster. Add an entry with policy \"admin\" and no namespaces, or leave cluster_creator_admin true."
  }
}

variable "access_entries" {
  description = "Further people and machines that may use the Kubernetes API, by a name of your choice: an IAM role or user, what it may do (admin, edit or view), and where (no namespaces: everywhere)."
  type = map(object({
    principal_arn = string
    policy        = optional(string, "view")
    namespaces    = optional(list(string), [])
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for entry in values(var.access_entries) : contains(["admin", "edit", "view"], entry.policy)])
    error_message = "access_entries holds the policies ${jsonencode([for entry in values(var.access_entries) : entry.policy])}. Use \"admin\", \"edit\" or \"view\"."
  }

  validation {
    condition     = alltrue([for entry in values(var.access_entries) : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:(role|user)/", entry.principal_arn))])
    error_message = "access_entries holds the principals ${jsonencode([for entry in values(var.access_entries) : entry.principal_arn])}. Give ARNs of IAM roles or users, such as \"arn:aws:iam::123456789012:role/platform\"."
  }
}

# ---- encryption and logs ----

variable "kms_key_arn" {
  description = "KMS key that encrypts Kubernetes secrets. Null: the module makes one, with rotation."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn is \"${coalesce(var.kms_key_arn, "null")}\". Give the ARN of a key, not of an alias, or null."
  }
}

variable "disk_kms_key_arn" {
  description = "KMS key of the machines' disks; the Auto Scaling service must be allowed to use it. Null: the account's own key for disks. They are encrypted either way."
  type        = string
  default     = null
}

variable "enable_cloud_logging" {
  description = "Stream the control plane's logs to CloudWatch."
  type        = bool
  default     = true
  nullable    = false
}

variable "log_retention_days" {
  description = "Days that CloudWatch keeps logs of the control plane and of the network."
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is ${var.log_retention_days}. CloudWatch knows 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 and 3653."
  }
}

variable "addon_versions" {
  description = "Versions of EKS add-ons, by name, such as { vpc-cni = \"v1.20.4-eksbuild.1\" }. Others have EKS's default for the version of Kubernetes."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = length(setsubtract(keys(var.addon_versions), ["vpc-cni", "eks-pod-identity-agent", "kube-proxy", "coredns", "aws-ebs-csi-driver"])) == 0
    error_message = "addon_versions names ${join(", ", keys(var.addon_versions))}. The module installs vpc-cni, eks-pod-identity-agent, kube-proxy, coredns and aws-ebs-csi-driver."
  }
}
