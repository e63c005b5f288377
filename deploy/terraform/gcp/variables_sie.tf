variable "sie_namespace" {
  description = "Namespace in which the chart is installed."
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
  description = "Give the workers' Kubernetes account a Google account of its own, which may read the model cache. False: pods have their machine's account."
  type        = bool
  default     = true
  nullable    = false
}

# ---- images and models ----

variable "create_artifact_registry" {
  description = "Make a repository for the images, and copies of pull_through_registries."
  type        = bool
  default     = true
  nullable    = false
}

variable "artifact_registry_location" {
  description = "Region of the repositories. Empty: that of the cluster."
  type        = string
  default     = ""
  nullable    = false
}

variable "registry_keep_images" {
  description = "Newest versions of each image that a repository keeps; of the others those older than 30 days are deleted."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.registry_keep_images >= 2 && floor(var.registry_keep_images) == var.registry_keep_images
    error_message = "registry_keep_images is ${var.registry_keep_images}. Keep two or more: the one that runs and the one to go back to."
  }
}

variable "registry_kms_key_name" {
  description = "Cloud KMS key that encrypts the repositories, in full. Null: Google's own keys."
  type        = string
  default     = null
}

variable "pull_through_registries" {
  description = "Public registries that Artifact Registry copies from on first use, by a short name: the image quay.io/x/y is then at REGISTRY/quay/x/y, see the output pull_through_urls."
  type        = map(string)
  default = {
    ghcr = "https://ghcr.io"
    quay = "https://quay.io"
    k8s  = "https://registry.k8s.io"
  }
  nullable = false

  validation {
    condition     = alltrue([for name, uri in var.pull_through_registries : can(regex("^[a-z][a-z0-9]{0,15}$", name)) && name != "images" && can(regex("^https://[a-z0-9.-]+$", uri))])
    error_message = "pull_through_registries is ${jsonencode(var.pull_through_registries)}. Use names of at most 16 lower-case letters and digits, other than \"images\", and addresses such as \"https://ghcr.io\"."
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
    condition     = var.model_cache_bucket == null || can(regex("^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$", var.model_cache_bucket))
    error_message = "model_cache_bucket is \"${coalesce(var.model_cache_bucket, "null")}\". Give the bucket's name alone, without gs:// and prefix."
  }
}

variable "model_cache_location" {
  description = "Region or multi-region of the bucket. Empty: that of the cluster."
  type        = string
  default     = ""
  nullable    = false
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

variable "model_cache_kms_key_name" {
  description = "Cloud KMS key that encrypts the bucket, in full. Null: Google's own keys."
  type        = string
  default     = null
}
