# Which zones offer which machines, and so where the network and the pools are.

data "aws_availability_zones" "available" {
  state = "available"

  filter { # no local and wavelength zones: EKS cannot use them
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

  standard_zones = sort(data.aws_availability_zones.available.names)
  preferred_zones = distinct(concat(
    [for zone in local.standard_zones : zone if alltrue([for zones in values(local.offering) : contains(zones, zone)])],
    [for zone in local.standard_zones : zone if anytrue([for zones in values(local.offering) : contains(zones, zone)])],
    local.standard_zones,
  ))
  zones = var.create_network ? (
    length(var.availability_zones) > 0 ? distinct(var.availability_zones) : slice(local.preferred_zones, 0, min(3, length(local.preferred_zones)))
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
