# Which zones offer which machines, and so where the network and the pools are.

data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394: a zone more comes last and adds a subnet; nothing else moves (placement)
  state = "available"

  # EKS has no control plane in these.
  exclude_zone_ids = ["use1-az3", "usw1-az2", "cac1-az3"]

  filter { # no local and wavelength zones
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

data "aws_ec2_instance_type_offerings" "gpu" {
  for_each = toset(var.gpu_node_pools[*].machine_type)

  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = [each.key]
  }
}

data "aws_subnet" "private" {
  count = var.create_network ? 0 : length(var.private_subnet_ids)

  id = var.private_subnet_ids[count.index]
}

locals {
  offering = { for type, found in data.aws_ec2_instance_type_offerings.gpu : type => found.locations }

  # By name, so that a zone that a region gets later comes last and nothing moves.
  standard_zones = sort(data.aws_availability_zones.available.names)
  zones = var.create_network ? (
    length(var.availability_zones) > 0 ? distinct(var.availability_zones) : slice(local.standard_zones, 0, min(6, length(local.standard_zones)))
  ) : []

  # One for each subnet with machines, with its zone.
  private_subnets = concat(
    [for zone in local.zones : { id = aws_subnet.private[zone].id, zone = zone }],
    [for subnet in data.aws_subnet.private : { id = subnet.id, zone = subnet.availability_zone }],
  )
  private_subnet_ids = local.private_subnets[*].id

  pool_zones      = { for name, pool in local.pools : name => length(pool.zones) > 0 ? pool.zones : local.offering[pool.machine_type] }
  pool_subnet_ids = { for name, zones in local.pool_zones : name => [for subnet in local.private_subnets : subnet.id if contains(zones, subnet.zone)] }
  pool_misplaced  = { for name, pool in local.pools : name => setsubtract(pool.zones, local.offering[pool.machine_type]) }
}

# Node groups keep their subnets when a zone is added to the region or a machine to a zone: that would replace them.
# They move when you say so, by what is written here.
resource "terraform_data" "placement" {
  for_each = local.launch_templates

  input = jsonencode([var.availability_zones, var.private_subnet_ids, try(local.pools[each.key].zones, [])])
}
