# What a provider would have answered: one account, one region with three zones, GPUs in all of them.

mock_data "aws_caller_identity" {
  defaults = {
    account_id = "123456789012"
  }
}

mock_data "aws_partition" {
  defaults = {
    partition  = "aws"
    dns_suffix = "amazonaws.com"
  }
}

mock_data "aws_availability_zones" {
  defaults = {
    names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  }
}

mock_data "aws_ec2_instance_type_offerings" {
  defaults = {
    locations = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  }
}

mock_data "aws_subnet" {
  defaults = {
    availability_zone = "eu-central-1a"
  }
}
