terraform {
  required_version = ">= 1.9" # validations that look at other variables

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.14, < 8.0"
    }
    helm = { # asked for nothing unless install_ingress_nginx or install_sie is true
      source  = "hashicorp/helm"
      version = ">= 3.0, < 4.0"
    }
  }
}
