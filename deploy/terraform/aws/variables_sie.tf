variable "sie_namespace" {
  description = "Namespace in which you install the chart."
  type        = string
  default     = "sie"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", var.sie_namespace))
    error_message = "sie_namespace is \"${var.sie_namespace}\". Use at most 63 lower-case letters, digits and hyphens."
  }
}

variable "sie_service_account_name" {
  description = "Kubernetes account of the workers (serviceAccount.name of the chart)."
  type        = string
  default     = "sie-server"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", var.sie_service_account_name))
    error_message = "sie_service_account_name is \"${var.sie_service_account_name}\". Use at most 63 lower-case letters, digits and hyphens."
  }
}

variable "enable_workload_identity" {
  description = "Give the workers' Kubernetes account a role that may read the model cache, by EKS Pod Identity."
  type        = bool
  default     = true
  nullable    = false
}

# ---- images and models ----

variable "create_artifact_registry" {
  description = "Make ECR repositories for the images, and pull-through copies of pull_through_registries."
  type        = bool
  default     = true
  nullable    = false
}

variable "registry_keep_images" {
  description = "Images that a repository keeps; older ones are deleted."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.registry_keep_images >= 2 && floor(var.registry_keep_images) == var.registry_keep_images
    error_message = "registry_keep_images is ${var.registry_keep_images}. Keep two or more: the one that runs and the one to go back to."
  }
}

variable "pull_through_registries" {
  description = "Public registries that ECR copies from on first use, by a short name: images of quay.io/x/y are then at REGISTRY/CLUSTER/quay/x/y. Docker Hub and ghcr.io need `credential_arn`, a Secrets Manager secret whose name starts with ecr-pullthroughcache/."
  type = map(object({
    upstream       = string
    credential_arn = optional(string)
  }))
  default = {
    quay = { upstream = "quay.io" }
    k8s  = { upstream = "registry.k8s.io" }
    aws  = { upstream = "public.ecr.aws" }
  }
  nullable = false

  validation {
    condition     = alltrue([for name in keys(var.pull_through_registries) : can(regex("^[a-z0-9]{2,8}$", name))])
    error_message = "pull_through_registries has the names ${join(", ", keys(var.pull_through_registries))}. Use 2 to 8 lower-case letters and digits: with cluster_name they may have 30 characters."
  }

  validation {
    condition     = alltrue([for registry in values(var.pull_through_registries) : registry.credential_arn != null || contains(["quay.io", "registry.k8s.io", "public.ecr.aws"], registry.upstream)])
    error_message = "pull_through_registries has no credential_arn for ${join(", ", [for registry in values(var.pull_through_registries) : registry.upstream if registry.credential_arn == null && !contains(["quay.io", "registry.k8s.io", "public.ecr.aws"], registry.upstream)])}. ECR copies without one from quay.io, registry.k8s.io and public.ecr.aws only: put a token into Secrets Manager and give its ARN."
  }
}

variable "create_model_cache" {
  description = "Make a bucket for models near the workers."
  type        = bool
  default     = true
  nullable    = false

  validation {
    condition     = !(var.create_model_cache && var.model_cache_bucket != null)
    error_message = "create_model_cache is true and model_cache_bucket is \"${coalesce(var.model_cache_bucket, "null")}\". Set create_model_cache = false to use that bucket, or remove its name."
  }
}

variable "model_cache_bucket" {
  description = "Name of an existing bucket instead, with create_model_cache = false; models are below models/."
  type        = string
  default     = null

  validation {
    condition     = var.model_cache_bucket == null || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.model_cache_bucket))
    error_message = "model_cache_bucket is \"${coalesce(var.model_cache_bucket, "null")}\". Give the bucket's name alone, without s3:// and prefix."
  }
}

variable "model_cache_write" {
  description = "Workers may put models there that they got from the hub (workers.common.clusterCache.write of the chart)."
  type        = bool
  default     = false
  nullable    = false
}

variable "model_cache_versioning_enabled" {
  description = "Keep overwritten and deleted models for 30 days."
  type        = bool
  default     = false
  nullable    = false
}

variable "model_cache_expiration_days" {
  description = "Delete models so many days after they were put there. 0: never."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.model_cache_expiration_days >= 0 && floor(var.model_cache_expiration_days) == var.model_cache_expiration_days
    error_message = "model_cache_expiration_days is ${var.model_cache_expiration_days}. Give whole days, or 0 for never."
  }
}

variable "model_cache_kms_key_arn" {
  description = "KMS key that encrypts the bucket. Null: S3's own keys, for nothing."
  type        = string
  default     = null
}
