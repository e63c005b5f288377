variable "project_id" {
  description = "Your project."
  type        = string
}

variable "region" {
  description = "A region that has the machines (`gcloud compute machine-types list --filter=name=g2-standard-8`)."
  type        = string
  default     = "us-central1"
}

variable "network" {
  description = "The network: its name, or projects/HOST/global/networks/NAME."
  type        = string
}

variable "subnetwork" {
  description = "The subnetwork: its name, or projects/HOST/regions/REGION/subnetworks/NAME."
  type        = string
}

variable "pods_range_name" {
  description = "Its secondary range for pods."
  type        = string
}

variable "services_range_name" {
  description = "Its secondary range for Services."
  type        = string
}

variable "create_webhook_firewall_rule" {
  description = "False where the owner of a shared VPC makes firewall rules."
  type        = bool
  default     = true
}

variable "private_networks" {
  description = "Networks outside the VPC that reach the private API."
  type        = list(string)
  default     = []
}
