mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region = "eu-central-1"
}

run "models_are_private_encrypted_and_served_over_tls_only" {
  command = plan

  assert {
    condition     = aws_s3_bucket_public_access_block.models[0].block_public_acls && aws_s3_bucket_public_access_block.models[0].block_public_policy && aws_s3_bucket_public_access_block.models[0].ignore_public_acls && aws_s3_bucket_public_access_block.models[0].restrict_public_buckets
    error_message = "the bucket can become public"
  }
  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.models[0].rule).apply_server_side_encryption_by_default[0].sse_algorithm == "AES256" && aws_s3_bucket_ownership_controls.models[0].rule[0].object_ownership == "BucketOwnerEnforced"
    error_message = "models are not encrypted, or may belong to others"
  }
  assert {
    condition     = jsondecode(aws_s3_bucket_policy.models[0].policy).Statement[0].Effect == "Deny" && jsondecode(aws_s3_bucket_policy.models[0].policy).Statement[0].Condition.Bool["aws:SecureTransport"] == "false" && length(jsondecode(aws_s3_bucket_policy.models[0].policy).Statement) == 1
    error_message = "the bucket can be read without TLS, or its policy grants something"
  }
  assert {
    condition     = output.model_cache_url == "s3://sie-cluster-123456789012-eu-central-1-models/models" && output.model_cache_bucket_name == "sie-cluster-123456789012-eu-central-1-models"
    error_message = "model_cache_url is ${output.model_cache_url}"
  }
}

run "old_parts_and_versions_go" {
  command = plan

  variables {
    model_cache_versioning_enabled = true
    model_cache_expiration_days    = 90
  }

  assert {
    condition     = aws_s3_bucket_versioning.models[0].versioning_configuration[0].status == "Enabled"
    error_message = "versions are not kept"
  }
  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.models[0].rule[0].abort_incomplete_multipart_upload[0].days_after_initiation == 7 && aws_s3_bucket_lifecycle_configuration.models[0].rule[0].noncurrent_version_expiration[0].noncurrent_days == 30 && aws_s3_bucket_lifecycle_configuration.models[0].rule[1].expiration[0].days == 90
    error_message = "what nobody needs stays and bills"
  }
}

run "models_may_have_a_key_of_yours" {
  command = plan

  variables {
    model_cache_kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  }

  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.models[0].rule).apply_server_side_encryption_by_default[0].kms_master_key_id == var.model_cache_kms_key_arn && one(aws_s3_bucket_server_side_encryption_configuration.models[0].rule).bucket_key_enabled
    error_message = "models are not encrypted with that key"
  }
}

run "a_bucket_of_yours_is_used_and_none_made" {
  command = plan

  variables {
    create_model_cache = false
    model_cache_bucket = "my-models"
  }

  assert {
    condition     = length(aws_s3_bucket.models) == 0 && output.model_cache_url == "s3://my-models/models"
    error_message = "model_cache_url is ${output.model_cache_url}"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.workload[0].policy).Statement[0].Resource == "arn:aws:s3:::my-models/models/*"
    error_message = "workers may not read your bucket"
  }
}

run "there_may_be_no_bucket" {
  command = plan

  variables {
    create_model_cache = false
  }

  assert {
    condition     = output.model_cache_url == null && length(aws_iam_role_policy.workload) == 0 && yamldecode(output.helm_values).workers.common.clusterCache.enabled == false
    error_message = "there is a bucket, or rights to one"
  }
}

run "images_cannot_be_replaced_and_are_scanned" {
  command = plan

  assert {
    condition     = toset([for repository in aws_ecr_repository.this : repository.name]) == toset(["sie-cluster/sie-router", "sie-cluster/sie-server"])
    error_message = "the repositories are not those of the chart's images"
  }
  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.image_tag_mutability == "IMMUTABLE" && repository.image_scanning_configuration[0].scan_on_push])
    error_message = "an image can be replaced by another of the same tag, or is not scanned"
  }
  assert {
    condition     = output.artifact_registry_url == "123456789012.dkr.ecr.eu-central-1.amazonaws.com/sie-cluster"
    error_message = "artifact_registry_url is ${output.artifact_registry_url}"
  }
}

run "destroy_keeps_models_and_images_until_told_otherwise" {
  command = plan

  assert {
    condition     = !aws_s3_bucket.models[0].force_destroy && !anytrue([for repository in aws_ecr_repository.this : repository.force_delete])
    error_message = "terraform destroy would delete models or images"
  }
}

run "destroy_takes_everything_when_told_so" {
  command = plan

  variables {
    deletion_protection = false
  }

  assert {
    condition     = aws_s3_bucket.models[0].force_destroy && alltrue([for repository in aws_ecr_repository.this : repository.force_delete])
    error_message = "terraform destroy would stop at the bucket or the registry"
  }
}

run "public_registries_are_copied_on_first_use" {
  command = plan

  variables {
    pull_through_registries = {
      quay   = { upstream = "quay.io" }
      github = { upstream = "ghcr.io", credential_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/github" }
    }
  }

  assert {
    condition     = { for rule in aws_ecr_pull_through_cache_rule.this : rule.ecr_repository_prefix => rule.upstream_registry_url } == { "sie-cluster/quay" = "quay.io", "sie-cluster/github" = "ghcr.io" }
    error_message = "the copies are not of those registries"
  }
  assert {
    condition     = alltrue([for template in aws_ecr_repository_creation_template.pull_through : template.image_tag_mutability == "IMMUTABLE" && template.applied_for == toset(["PULL_THROUGH_CACHE"])])
    error_message = "a copy can be replaced"
  }
  assert {
    condition     = output.pull_through_urls["quay"] == "123456789012.dkr.ecr.eu-central-1.amazonaws.com/sie-cluster/quay"
    error_message = "pull_through_urls is ${jsonencode(output.pull_through_urls)}"
  }
}

run "there_may_be_no_registry" {
  command = plan

  variables {
    create_artifact_registry = false
  }

  assert {
    condition     = length(aws_ecr_repository.this) == 0 && length(aws_ecr_pull_through_cache_rule.this) == 0 && length(aws_iam_role_policy.node_pull_through) == 0 && output.artifact_registry_url == null
    error_message = "there is a registry that nobody asked for"
  }
}
