terraform {
  required_version = ">= 1.9" # validations that look at other variables

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 8.0" # tested with the schema of 6.50
    }
    helm = { # used with install_ingress_nginx and install_sie only; yours to configure then
      source  = "hashicorp/helm"
      version = ">= 3.1, < 4.0"
    }
  }
}
