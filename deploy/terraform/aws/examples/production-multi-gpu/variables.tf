variable "region" {
  description = "A region that has the machines (`aws ec2 describe-instance-type-offerings --region REGION --filters Name=instance-type,Values=g6.xlarge`)."
  type        = string
  default     = "us-east-1"
}

variable "authorized_networks" {
  description = "Where you work: the networks from which kubectl reaches the cluster, such as [{ cidr_block = \"203.0.113.7/32\" }] for one address."
  type = list(object({
    cidr_block   = string
    display_name = optional(string, "")
  }))

  validation {
    condition     = length(var.authorized_networks) > 0
    error_message = "authorized_networks is empty. Name the network from which you work; the example private shows a cluster without any."
  }
}

variable "availability_zones" {
  description = "Three zones, of which at least one has each of the machines."
  type        = list(string)
  default     = ["us-east-1a", "us-east-1b", "us-east-1d"]
}

variable "administrators" {
  description = "IAM roles or users that administer the cluster besides whoever runs Terraform, by a name of your choice."
  type        = map(string)
  default     = {}
}
