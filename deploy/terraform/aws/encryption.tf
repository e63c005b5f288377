# One key for Kubernetes secrets and logs, unless you bring one for the secrets.

locals {
  own_key        = var.kms_key_arn == null
  secrets_key    = local.own_key ? aws_kms_key.this[0].arn : var.kms_key_arn
  log_key_arn    = local.own_key ? aws_kms_key.this[0].arn : null
  log_group_arns = "arn:${local.partition}:logs:${var.region}:${local.account}:log-group:*"
}

resource "aws_kms_key" "this" {
  count = local.own_key ? 1 : 0

  description             = "Kubernetes secrets and logs of ${var.cluster_name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30 # a key that waits for deletion costs nothing
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AccountDecidesByItsOwnPolicies"
        Effect    = "Allow"
        Principal = { AWS = "arn:${local.partition}:iam::${local.account}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "LogGroupsOfThisAccount"
        Effect    = "Allow"
        Principal = { Service = "logs.${var.region}.amazonaws.com" }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
        Resource  = "*"
        Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = local.log_group_arns } }
      },
    ]
  })
  tags = var.tags
}

resource "aws_kms_alias" "this" {
  count = local.own_key ? 1 : 0

  name          = "alias/${var.cluster_name}"
  target_key_id = aws_kms_key.this[0].key_id
}
