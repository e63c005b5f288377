# What the VPC reaches without the internet, and the log of its connections.

resource "aws_vpc_endpoint" "s3" {
  count = var.create_network ? 1 : 0

  vpc_id            = aws_vpc.this[0].id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [for zone in local.zones : aws_route_table.private[zone].id]
  tags              = merge(var.tags, { Name = "${var.cluster_name}-s3" })
}

resource "aws_security_group" "endpoints" {
  count = var.create_network && length(var.interface_endpoints) > 0 ? 1 : 0

  name        = "${var.cluster_name}-endpoints"
  description = "HTTPS from the VPC to the endpoints of AWS services"
  vpc_id      = aws_vpc.this[0].id
  tags        = merge(var.tags, { Name = "${var.cluster_name}-endpoints" })
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  count = length(aws_security_group.endpoints)

  security_group_id = aws_security_group.endpoints[0].id
  description       = "HTTPS from the VPC"
  cidr_ipv4         = var.vpc_cidr
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_endpoint" "interface" {
  for_each = var.create_network ? toset(var.interface_endpoints) : toset([])

  vpc_id              = aws_vpc.this[0].id
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = [for zone in local.zones : aws_subnet.private[zone].id]
  security_group_ids  = [aws_security_group.endpoints[0].id]
  private_dns_enabled = true
  tags                = merge(var.tags, { Name = "${var.cluster_name}-${each.key}" })
}

locals {
  flow_logs = var.create_network && var.enable_flow_logs
}

resource "aws_cloudwatch_log_group" "network" {
  #checkov:skip=CKV_AWS_338: how long logs are kept is yours to say (log_retention_days)
  count = local.flow_logs ? 1 : 0

  name              = "/aws/vpc/${var.cluster_name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = local.log_key_arn
  tags              = var.tags
}

resource "aws_iam_role" "flow_logs" {
  count = local.flow_logs ? 1 : 0

  name = "${var.cluster_name}-flow-logs"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
  tags = var.tags
}

resource "aws_iam_role_policy" "flow_logs" {
  count = local.flow_logs ? 1 : 0

  name = "write"
  role = aws_iam_role.flow_logs[0].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
      Resource = "${aws_cloudwatch_log_group.network[0].arn}:*"
    }]
  })
}

resource "aws_flow_log" "this" {
  count = local.flow_logs ? 1 : 0

  vpc_id                   = aws_vpc.this[0].id
  traffic_type             = "ALL"
  log_destination_type     = "cloud-watch-logs"
  log_destination          = aws_cloudwatch_log_group.network[0].arn
  iam_role_arn             = aws_iam_role.flow_logs[0].arn
  max_aggregation_interval = 600
  tags                     = merge(var.tags, { Name = var.cluster_name })
}
