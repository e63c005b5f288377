terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 8.0"
    }
    helm = { # of the module; nothing is installed here
      source  = "hashicorp/helm"
      version = ">= 3.1, < 4.0"
    }
  }
}

provider "google" {
  project = var.project_id
  region  = var.region
}
