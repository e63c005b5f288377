variable "create_network" {
  description = "False: use the VPC and the subnets that you name."
  type        = bool
  default     = true
  nullable    = false
}

variable "vpc_id" {
  description = "VPC of an existing network, with create_network = false."
  type        = string
  default     = null

  validation {
    condition     = !(var.create_network && (var.vpc_id != null || length(var.private_subnet_ids) > 0))
    error_message = "vpc_id or private_subnet_ids is set, but create_network is true, so they would be ignored. Set create_network = false, or remove them."
  }

  validation {
    condition     = var.create_network || (var.vpc_id != null && length(var.private_subnet_ids) >= 2)
    error_message = "create_network is false with vpc_id ${var.vpc_id == null ? "missing" : "set"} and ${length(var.private_subnet_ids)} private_subnet_ids. EKS needs the VPC and at least two subnets in different zones."
  }
}

variable "private_subnet_ids" {
  description = "Private subnets of an existing network, in two zones or more, with a way to the registries (NAT or endpoints)."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(var.private_subnet_ids) == length(distinct(var.private_subnet_ids))
    error_message = "private_subnet_ids names a subnet twice: ${join(", ", var.private_subnet_ids)}. EKS needs different ones, in two zones or more."
  }
}

variable "vpc_cidr" {
  description = "Addresses of the VPC. Pods have addresses of it too."
  type        = string
  default     = "10.0.0.0/16"
  nullable    = false

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && can(regex("/(1[6-9]|20)$", var.vpc_cidr))
    error_message = "vpc_cidr is \"${var.vpc_cidr}\". Give an IPv4 network from /16 to /20, such as \"10.0.0.0/16\": smaller ones have no room for pods in three zones."
  }
}

variable "services_cidr" {
  description = "Addresses of Kubernetes Services, outside the VPC's. Null: EKS chooses."
  type        = string
  default     = null

  validation {
    condition     = var.services_cidr == null || (can(cidrhost(var.services_cidr, 0)) && can(regex("^(10|172|192)\\..*/(1[2-9]|2[0-4])$", var.services_cidr)))
    error_message = "services_cidr is \"${coalesce(var.services_cidr, "null")}\". Give a private IPv4 network from /12 to /24, such as \"172.20.0.0/16\", or null."
  }
}

variable "availability_zones" {
  description = "Zones of the network, two to six. Empty: all that EKS supports, so that every machine of the region can be had."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for zone in var.availability_zones : can(regex("^${var.region}[a-z]$", zone))])
    error_message = "availability_zones is ${jsonencode(var.availability_zones)}. All must be zones of the region ${var.region}, such as \"${var.region}a\"."
  }

  validation {
    condition     = length(var.availability_zones) == 0 || (length(distinct(var.availability_zones)) >= 2 && length(var.availability_zones) <= 6)
    error_message = "availability_zones is ${jsonencode(var.availability_zones)}. EKS needs at least two zones, and the network has room for six. Leave it empty to have them chosen."
  }

  validation {
    condition     = length(var.availability_zones) == 0 || var.create_network
    error_message = "availability_zones is set, but create_network is false: the zones are those of private_subnet_ids. Remove it."
  }
}

variable "nat_gateways" {
  description = "Ways out of the private subnets: one for all zones (cheap, ends with its zone), per_zone (bills for each), or none: then every image must be in ECR and every model in the bucket, which interface_endpoints reach."
  type        = string
  default     = "one"
  nullable    = false

  validation {
    condition     = contains(["one", "per_zone", "none"], var.nat_gateways)
    error_message = "nat_gateways is \"${var.nat_gateways}\". Use \"one\", \"per_zone\" or \"none\"."
  }
}

variable "interface_endpoints" {
  description = "AWS services that the VPC reaches without the internet, such as [\"ecr.api\", \"ecr.dkr\", \"sts\"]; each bills by the hour and zone. The endpoint of S3, through which layers of images come, is always there and free."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(setsubtract(var.interface_endpoints, ["autoscaling", "ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "elasticloadbalancing", "kms", "logs", "sqs", "ssm", "sts"])) == 0
    error_message = "interface_endpoints names ${join(", ", setsubtract(var.interface_endpoints, ["autoscaling", "ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "elasticloadbalancing", "kms", "logs", "sqs", "ssm", "sts"]))}. Known are autoscaling, ec2, ecr.api, ecr.dkr, eks, eks-auth, elasticloadbalancing, kms, logs, sqs, ssm and sts."
  }

  validation {
    condition     = !var.create_network || var.nat_gateways != "none" || length(setsubtract(["autoscaling", "ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "sts"], var.interface_endpoints)) == 0
    error_message = "nat_gateways is \"none\", and machines cannot join without these interface_endpoints: ${join(", ", setsubtract(["autoscaling", "ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "sts"], var.interface_endpoints))}. Add them, or give the network a NAT."
  }
}

variable "enable_flow_logs" {
  description = "Log connections of the VPC to CloudWatch."
  type        = bool
  default     = true
  nullable    = false
}
