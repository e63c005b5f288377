variable "project_id" {
  description = "Your project."
  type        = string
}

variable "region" {
  description = "A region that has the machines (`gcloud compute machine-types list --filter=name=g2-standard-8`)."
  type        = string
  default     = "us-central1"
}

variable "corporate_network" {
  description = "Network that reaches the VPC through a VPN or an interconnect, and with it the API."
  type        = string
}

variable "kms_key_name" {
  description = "Cloud KMS key in the region that encrypts Kubernetes secrets and the machines' disks. The service agents of GKE and Compute Engine must be allowed to use it."
  type        = string
}

variable "host" {
  description = "Name of the site, which you point to the internal load balancer."
  type        = string
}
