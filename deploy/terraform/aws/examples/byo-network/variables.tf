variable "region" {
  description = "A region that has the machines (`aws ec2 describe-instance-type-offerings --region REGION --filters Name=instance-type,Values=g6.xlarge`)."
  type        = string
  default     = "us-east-1"
}

variable "vpc_id" {
  description = "Your VPC."
  type        = string
}

variable "private_subnet_ids" {
  description = "Private subnets of it in two zones or more, with a way to the internet (NAT)."
  type        = list(string)
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
