variable "project_id" {
  description = "Your project."
  type        = string
}

variable "region" {
  description = "A region that has the machines (`gcloud compute machine-types list --filter=name=g2-standard-8`)."
  type        = string
  default     = "us-central1"
}

variable "authorized_networks" {
  description = "Networks that reach the Kubernetes API over the internet. Empty: none."
  type = list(object({
    cidr_block   = string
    display_name = optional(string, "")
  }))
  default = []
}
