# A VPC with a private and a public subnet in each zone. Machines are in the private ones only.

locals {
  nat_zones = var.nat_gateways == "none" ? [] : var.nat_gateways == "one" ? slice(local.zones, 0, min(1, length(local.zones))) : local.zones
  vpc_id    = var.create_network ? aws_vpc.this[0].id : var.vpc_id
}

resource "aws_vpc" "this" {
  count = var.create_network ? 1 : 0

  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true # for the private name of the API and of endpoints
  tags                 = merge(var.tags, { Name = var.cluster_name })

  lifecycle {
    precondition {
      condition     = alltrue([for zone in local.standard_zones : startswith(zone, var.region)])
      error_message = "The provider works in the region of ${join(", ", local.standard_zones)}, but region is \"${var.region}\". Give both the same region."
    }
    precondition {
      condition     = length(local.zones) >= 2
      error_message = "The network would be in the zones ${jsonencode(local.zones)}. EKS needs two or more: set availability_zones, or use another region."
    }
  }
}

resource "aws_default_security_group" "this" {
  count = var.create_network ? 1 : 0

  vpc_id  = aws_vpc.this[0].id
  ingress = [] # nothing is reachable by accident
  egress  = []
  tags    = merge(var.tags, { Name = "${var.cluster_name}-default-unused" })
}

resource "aws_subnet" "private" {
  for_each = toset(local.zones)

  vpc_id            = aws_vpc.this[0].id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.vpc_cidr, 3, index(local.zones, each.key))
  tags = merge(var.tags, {
    Name                              = "${var.cluster_name}-private-${each.key}"
    "kubernetes.io/role/internal-elb" = "1"
  })
}

resource "aws_subnet" "public" {
  for_each = toset(local.zones)

  vpc_id                  = aws_vpc.this[0].id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(cidrsubnet(var.vpc_cidr, 3, 7), 5, index(local.zones, each.key))
  map_public_ip_on_launch = false # only NAT and load balancers live here, and bring their own addresses
  tags = merge(var.tags, {
    Name                     = "${var.cluster_name}-public-${each.key}"
    "kubernetes.io/role/elb" = "1"
  })
}

resource "aws_internet_gateway" "this" {
  count = var.create_network ? 1 : 0

  vpc_id = aws_vpc.this[0].id
  tags   = merge(var.tags, { Name = var.cluster_name })
}

resource "aws_eip" "nat" {
  for_each = toset(local.nat_zones)

  domain = "vpc"
  tags   = merge(var.tags, { Name = "${var.cluster_name}-nat-${each.key}" })

  depends_on = [aws_internet_gateway.this]
}

resource "aws_nat_gateway" "this" {
  for_each = toset(local.nat_zones)

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id
  tags          = merge(var.tags, { Name = "${var.cluster_name}-${each.key}" })
}

resource "aws_route_table" "public" {
  count = var.create_network ? 1 : 0

  vpc_id = aws_vpc.this[0].id
  tags   = merge(var.tags, { Name = "${var.cluster_name}-public" })
}

resource "aws_route" "public_internet" {
  count = var.create_network ? 1 : 0

  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  for_each = toset(local.zones)

  subnet_id      = aws_subnet.public[each.key].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_route_table" "private" {
  for_each = toset(local.zones)

  vpc_id = aws_vpc.this[0].id
  tags   = merge(var.tags, { Name = "${var.cluster_name}-private-${each.key}" })
}

resource "aws_route" "private_internet" {
  for_each = length(local.nat_zones) == 0 ? toset([]) : toset(local.zones)

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[contains(local.nat_zones, each.key) ? each.key : local.nat_zones[0]].id
}

resource "aws_route_table_association" "private" {
  for_each = toset(local.zones)

  subnet_id      = aws_subnet.private[each.key].id
  route_table_id = aws_route_table.private[each.key].id
}
