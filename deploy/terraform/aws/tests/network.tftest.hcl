mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region = "eu-central-1"
}

run "machines_are_in_private_subnets_of_three_zones" {
  command = plan

  assert {
    condition     = keys(aws_subnet.private) == ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    error_message = "the private subnets are in ${join(", ", keys(aws_subnet.private))}"
  }
  assert {
    condition     = [for subnet in aws_subnet.private : subnet.cidr_block] == ["10.0.0.0/19", "10.0.32.0/19", "10.0.64.0/19"]
    error_message = "the private subnets are not where they were"
  }
  assert {
    condition     = [for subnet in aws_subnet.public : subnet.cidr_block] == ["10.0.224.0/24", "10.0.225.0/24", "10.0.226.0/24"] && !anytrue([for subnet in aws_subnet.public : subnet.map_public_ip_on_launch])
    error_message = "the public subnets are not where they were, or give machines public addresses"
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.private : subnet.tags["kubernetes.io/role/internal-elb"] == "1"]) && alltrue([for subnet in aws_subnet.public : subnet.tags["kubernetes.io/role/elb"] == "1"])
    error_message = "load balancers would not find their subnets"
  }
  assert {
    condition     = length(aws_default_security_group.this[0].ingress) == 0 && length(aws_default_security_group.this[0].egress) == 0
    error_message = "the VPC's default group lets something through"
  }
}

run "one_nat_serves_all_zones" {
  command = plan

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_route.private_internet) == 3
    error_message = "not one NAT with a route from each zone"
  }
}

run "each_zone_may_have_its_own_nat" {
  command = plan

  variables {
    nat_gateways = "per_zone"
  }

  assert {
    condition     = keys(aws_nat_gateway.this) == keys(aws_subnet.private) && length(aws_eip.nat) == 3
    error_message = "some zone has no NAT of its own"
  }
}

run "without_nat_everything_comes_through_endpoints" {
  command = plan

  variables {
    nat_gateways        = "none"
    interface_endpoints = ["autoscaling", "ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "sts", "logs"]
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 0 && length(aws_route.private_internet) == 0 && length(aws_eip.nat) == 0
    error_message = "there is a way to the internet"
  }
  assert {
    condition     = aws_vpc_endpoint.interface["ecr.dkr"].service_name == "com.amazonaws.eu-central-1.ecr.dkr" && aws_vpc_endpoint.interface["ecr.dkr"].private_dns_enabled && length(aws_vpc_endpoint.interface) == 8
    error_message = "images would not come through the endpoint"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.endpoints[0].cidr_ipv4 == "10.0.0.0/16" && aws_vpc_security_group_ingress_rule.endpoints[0].from_port == 443
    error_message = "endpoints are not reachable from the VPC alone"
  }
  assert {
    condition     = aws_vpc_endpoint.s3[0].vpc_endpoint_type == "Gateway"
    error_message = "the endpoint of S3 would bill"
  }
}

run "zones_can_be_chosen" {
  command = plan

  variables {
    availability_zones = ["eu-central-1c", "eu-central-1a"]
    vpc_cidr           = "10.8.0.0/18"
  }

  assert {
    condition     = aws_subnet.private["eu-central-1c"].cidr_block == "10.8.0.0/21" && aws_subnet.private["eu-central-1a"].cidr_block == "10.8.8.0/21" && length(aws_subnet.private) == 2
    error_message = "the private subnets are not in the chosen zones"
  }
}

run "connections_are_logged" {
  command = plan

  assert {
    condition     = aws_flow_log.this[0].traffic_type == "ALL" && aws_cloudwatch_log_group.network[0].retention_in_days == 90
    error_message = "connections are not logged, or for ever"
  }
}
