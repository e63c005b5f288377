variable "project_id" {
  description = "Your project."
  type        = string
}

variable "region" {
  description = "A region that has the machines (`gcloud compute machine-types list --filter=name=g2-standard-8`)."
  type        = string
  default     = "us-central1"
}

variable "cluster_name" {
  description = "Name of the cluster."
  type        = string
  default     = "sie-quickstart"
}
