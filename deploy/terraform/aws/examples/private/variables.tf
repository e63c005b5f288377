variable "region" {
  description = "A region that has the machines (`aws ec2 describe-instance-type-offerings --region REGION --filters Name=instance-type,Values=g6.xlarge`)."
  type        = string
  default     = "us-east-1"
}

variable "corporate_network" {
  description = "Network that reaches the VPC through a VPN or a transit gateway, and with it the API."
  type        = string
}

variable "kms_key_arn" {
  description = "KMS key in the region that encrypts Kubernetes secrets."
  type        = string
}

variable "host" {
  description = "Name of the site, which you point to the internal load balancer."
  type        = string
}
