# Repositories for the images that you build, and copies of public registries that fill themselves.

locals {
  registry          = "${local.account}.dkr.ecr.${var.region}.${data.aws_partition.current.dns_suffix}"
  repositories      = var.create_artifact_registry ? toset(["sie-router", "sie-server"]) : toset([])
  pull_through      = var.create_artifact_registry ? var.pull_through_registries : {}
  pull_through_urls = { for name in keys(local.pull_through) : name => "${local.registry_path}/${name}" }
  registry_path     = "${local.registry}/${var.cluster_name}"
}

resource "aws_ecr_repository" "this" {
  #checkov:skip=CKV_AWS_136: images are no secret, and are encrypted with Amazon's own keys
  for_each = local.repositories

  name                 = "${var.cluster_name}/${each.key}"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = !var.deletion_protection
  tags                 = var.tags

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "AES256"
  }
}

locals {
  keep_images = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "untagged images go after two weeks"
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 14 }
        action       = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "the newest ${var.registry_keep_images} images stay"
        selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = var.registry_keep_images }
        action       = { type = "expire" }
      },
    ]
  })
}

resource "aws_ecr_lifecycle_policy" "this" {
  for_each = local.repositories

  repository = aws_ecr_repository.this[each.key].name
  policy     = local.keep_images
}

resource "aws_ecr_pull_through_cache_rule" "this" {
  for_each = local.pull_through

  ecr_repository_prefix = "${var.cluster_name}/${each.key}"
  upstream_registry_url = each.value.upstream
  credential_arn        = each.value.credential_arn
}

# The repositories that a pull-through rule makes are not Terraform's; this says what they are like.
resource "aws_ecr_repository_creation_template" "pull_through" {
  for_each = local.pull_through

  prefix               = "${var.cluster_name}/${each.key}"
  description          = "Copies of ${each.value.upstream}"
  applied_for          = ["PULL_THROUGH_CACHE"]
  image_tag_mutability = "IMMUTABLE"
  lifecycle_policy     = local.keep_images

  encryption_configuration {
    encryption_type = "AES256"
  }
}

# The first pull of an image makes its repository and copies it.
resource "aws_iam_role_policy" "node_pull_through" {
  count = length(local.pull_through) > 0 ? 1 : 0

  name = "pull-through"
  role = aws_iam_role.node.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["ecr:BatchImportUpstreamImage", "ecr:CreateRepository"]
      Resource = [for name in keys(local.pull_through) : "arn:${local.partition}:ecr:${var.region}:${local.account}:repository/${var.cluster_name}/${name}/*"]
    }]
  })
}
