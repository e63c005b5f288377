# The bucket from which workers get models, near them and without the hub.

locals {
  own_bucket = var.create_model_cache
  # 63 characters at most, which 21 of the cluster, 12 of the account and 14 of a region never reach
  model_cache_bucket = local.own_bucket ? "${var.cluster_name}-${local.account}-${var.region}-models" : var.model_cache_bucket
  model_cache_arn    = local.model_cache_bucket == null ? null : "arn:${local.partition}:s3:::${local.model_cache_bucket}"
  model_cache_url    = local.model_cache_bucket == null ? null : "s3://${local.model_cache_bucket}/models"

  model_cache_statements = concat(
    [
      {
        Sid      = "GetModels"
        Effect   = "Allow"
        Action   = concat(["s3:GetObject"], var.model_cache_write ? ["s3:PutObject", "s3:AbortMultipartUpload"] : [])
        Resource = "${coalesce(local.model_cache_arn, "none")}/models/*"
      },
      {
        Sid      = "KnowWhatIsMissing" # S3 answers 403 instead of 404 to those who may not list
        Effect   = "Allow"
        Action   = ["s3:ListBucket"]
        Resource = coalesce(local.model_cache_arn, "none")
      },
    ],
    var.model_cache_kms_key_arn == null ? [] : [
      {
        Sid      = "UseItsKey"
        Effect   = "Allow"
        Action   = concat(["kms:Decrypt"], var.model_cache_write ? ["kms:GenerateDataKey"] : [])
        Resource = var.model_cache_kms_key_arn
      },
    ],
  )
}

resource "aws_s3_bucket" "models" {
  #checkov:skip=CKV2_AWS_62: nobody would listen to events of a cache
  #checkov:skip=CKV_AWS_18: reads of published models need no record; CloudTrail has them where they do
  #checkov:skip=CKV_AWS_144: a cache of what the hub has needs no second copy
  #checkov:skip=CKV_AWS_21: versioning is a choice (model_cache_versioning_enabled), off for a cache
  count = local.own_bucket ? 1 : 0

  bucket        = local.model_cache_bucket
  force_destroy = !var.deletion_protection
  tags          = var.tags
}

resource "aws_s3_bucket_public_access_block" "models" {
  count = local.own_bucket ? 1 : 0

  bucket                  = aws_s3_bucket.models[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "models" {
  count = local.own_bucket ? 1 : 0

  bucket = aws_s3_bucket.models[0].id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "models" {
  count = local.own_bucket ? 1 : 0

  bucket = aws_s3_bucket.models[0].id
  rule {
    bucket_key_enabled = var.model_cache_kms_key_arn != null
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.model_cache_kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.model_cache_kms_key_arn
    }
  }
}

resource "aws_s3_bucket_versioning" "models" {
  count = local.own_bucket ? 1 : 0

  bucket = aws_s3_bucket.models[0].id
  versioning_configuration {
    status = var.model_cache_versioning_enabled ? "Enabled" : "Suspended"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "models" {
  count = local.own_bucket ? 1 : 0

  bucket = aws_s3_bucket.models[0].id

  rule {
    id     = "what nobody needs"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
    noncurrent_version_expiration {
      noncurrent_days = 30
    }
  }

  dynamic "rule" {
    for_each = var.model_cache_expiration_days == 0 ? [] : [var.model_cache_expiration_days]
    content {
      id     = "models age"
      status = "Enabled"
      filter {
        prefix = "models/"
      }
      expiration {
        days = rule.value
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.models]
}

resource "aws_s3_bucket_policy" "models" {
  count = local.own_bucket ? 1 : 0

  bucket = aws_s3_bucket.models[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [local.model_cache_arn, "${local.model_cache_arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  depends_on = [aws_s3_bucket_public_access_block.models]
}
