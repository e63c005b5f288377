variable "create_network" {
  description = "False: use the network and subnetwork that you name."
  type        = bool
  default     = true
  nullable    = false

  validation {
    condition     = !var.create_network || (var.network == null && var.subnetwork == null)
    error_message = "network or subnetwork is set, but create_network is true, so they would be ignored. Set create_network = false, or remove them."
  }

  validation {
    condition     = var.create_network || (var.network != null && var.subnetwork != null)
    error_message = "create_network is false. Set network and subnetwork to those that the cluster shall use."
  }
}

variable "network" {
  description = "Existing network, with create_network = false: its name, or projects/HOST/global/networks/NAME of a shared VPC."
  type        = string
  default     = null
}

variable "subnetwork" {
  description = "Existing subnetwork in the region, with create_network = false: its name, or projects/HOST/regions/REGION/subnetworks/NAME. It needs two secondary ranges, private Google access, and a way to the internet (Cloud NAT)."
  type        = string
  default     = null

  validation {
    condition     = var.subnetwork == null || !can(regex("/", var.subnetwork)) || can(regex("(^|/)projects/[^/]+/regions/${var.region}/subnetworks/[^/]+$", var.subnetwork))
    error_message = "subnetwork is \"${coalesce(var.subnetwork, "null")}\". Give a name, or projects/HOST/regions/${var.region}/subnetworks/NAME: it must be in the cluster's region."
  }
}

variable "pods_range_name" {
  description = "Secondary range of the subnetwork for pods."
  type        = string
  default     = "pods"
  nullable    = false
}

variable "services_range_name" {
  description = "Secondary range of the subnetwork for Services."
  type        = string
  default     = "services"
  nullable    = false

  validation {
    condition     = var.services_range_name != var.pods_range_name
    error_message = "pods_range_name and services_range_name are both \"${var.services_range_name}\". Pods and Services need different ranges."
  }
}

variable "subnet_cidr" {
  description = "Addresses of machines, with create_network."
  type        = string
  default     = "10.0.0.0/20"
  nullable    = false

  validation {
    condition     = can(cidrhost(var.subnet_cidr, 0)) && can(regex("/(8|9|1[0-9]|2[0-6])$", var.subnet_cidr))
    error_message = "subnet_cidr is \"${var.subnet_cidr}\". Give an IPv4 network from /8 to /26, such as \"10.0.0.0/20\"."
  }
}

variable "pods_cidr" {
  description = "Addresses of pods, with create_network: 256 for each machine."
  type        = string
  default     = "10.1.0.0/16"
  nullable    = false

  validation {
    condition     = can(cidrhost(var.pods_cidr, 0)) && can(regex("/(9|1[0-9]|2[0-1])$", var.pods_cidr))
    error_message = "pods_cidr is \"${var.pods_cidr}\". Give an IPv4 network from /9 to /21, such as \"10.1.0.0/16\": every machine takes 256 addresses."
  }
}

variable "services_cidr" {
  description = "Addresses of Services, with create_network."
  type        = string
  default     = "10.2.0.0/20"
  nullable    = false

  validation {
    condition     = can(cidrhost(var.services_cidr, 0)) && can(regex("/(1[6-9]|2[0-7])$", var.services_cidr))
    error_message = "services_cidr is \"${var.services_cidr}\". Give an IPv4 network from /16 to /27, such as \"10.2.0.0/20\"."
  }
}

variable "enable_flow_logs" {
  description = "Log a tenth of the connections of the subnetwork, with create_network."
  type        = bool
  default     = true
  nullable    = false
}

variable "create_webhook_firewall_rule" {
  description = "Let the control plane reach admission webhooks and KEDA's metrics on the machines (ports 6443, 8443, 9443). In a shared VPC whose owner makes such rules: false."
  type        = bool
  default     = true
  nullable    = false
}
