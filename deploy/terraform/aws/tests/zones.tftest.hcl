# Needs Terraform: OpenTofu does not override one instance of a data source.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region = "eu-central-1"
}

run "each_pool_is_where_its_machines_are" {
  command = plan

  variables {
    gpu_node_pools = [
      { name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4 },
      { name = "a100-pool", machine_type = "p4d.24xlarge", max_node_count = 2 },
    ]
  }

  override_data {
    target = data.aws_availability_zones.available
    values = {
      names = ["eu-central-1d", "eu-central-1c", "eu-central-1b", "eu-central-1a"]
    }
  }
  override_data {
    target = data.aws_ec2_instance_type_offerings.gpu["g6.xlarge"]
    values = {
      locations = ["eu-central-1b", "eu-central-1c"]
    }
  }
  override_data {
    target = data.aws_ec2_instance_type_offerings.gpu["p4d.24xlarge"]
    values = {
      locations = ["eu-central-1d"]
    }
  }

  assert {
    condition     = local.zones == tolist(["eu-central-1a", "eu-central-1b", "eu-central-1c", "eu-central-1d"])
    error_message = "the zones are ${join(", ", local.zones)}"
  }
  assert {
    condition     = { for name, subnets in local.pool_subnet_ids : name => length(subnets) } == { "l4-pool" = 2, "a100-pool" = 1 }
    error_message = "a pool is in zones that have not its machines"
  }
}

run "a_network_of_yours_is_used_and_none_made" {
  command = plan

  variables {
    create_network     = false
    vpc_id             = "vpc-0123456789abcdef0"
    private_subnet_ids = ["subnet-0000000000000000a", "subnet-0000000000000000b"]
  }

  override_data {
    target = data.aws_subnet.private[0]
    values = {
      id                = "subnet-0000000000000000a"
      availability_zone = "eu-central-1a"
    }
  }
  override_data {
    target = data.aws_subnet.private[1]
    values = {
      id                = "subnet-0000000000000000b"
      availability_zone = "eu-central-1b"
    }
  }
  override_data {
    target = data.aws_ec2_instance_type_offerings.gpu["g6.xlarge"]
    values = {
      locations = ["eu-central-1b", "eu-central-1c"]
    }
  }

  assert {
    condition     = length(aws_vpc.this) == 0 && length(aws_subnet.private) == 0 && length(aws_nat_gateway.this) == 0 && length(aws_vpc_endpoint.s3) == 0 && length(aws_flow_log.this) == 0
    error_message = "parts of a network are made though there is one"
  }
  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].subnet_ids == toset(["subnet-0000000000000000a", "subnet-0000000000000000b"])
    error_message = "the cluster is not in your subnets"
  }
  assert {
    condition     = aws_eks_node_group.gpu["l4-pool"].subnet_ids == toset(["subnet-0000000000000000b"])
    error_message = "the pool is not where the machines are"
  }
  assert {
    condition     = output.network_name == "vpc-0123456789abcdef0"
    error_message = "network_name is ${output.network_name}"
  }
}

run "machines_that_the_zone_has_not" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, zones = ["eu-central-1c"] }]
  }

  override_data {
    target = data.aws_ec2_instance_type_offerings.gpu["g6.xlarge"]
    values = {
      locations = ["eu-central-1a"]
    }
  }

  expect_failures = [aws_eks_node_group.gpu]
}
