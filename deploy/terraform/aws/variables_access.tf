variable "sie_ingress_enabled" {
  description = "An Ingress in front of the routers (ingress.enabled of the chart)."
  type        = bool
  default     = false
  nullable    = false
}

variable "sie_ingress_host" {
  description = "Name of the site."
  type        = string
  default     = ""
  nullable    = false
}

variable "sie_ingress_tls_enabled" {
  description = "https, with the certificate in sie_ingress_tls_secret_name."
  type        = bool
  default     = false
  nullable    = false

  validation {
    condition     = !var.sie_ingress_tls_enabled || (var.sie_ingress_enabled && var.sie_ingress_host != "")
    error_message = "sie_ingress_tls_enabled is true, sie_ingress_enabled ${var.sie_ingress_enabled} and sie_ingress_host \"${var.sie_ingress_host}\". A certificate is for a site: set sie_ingress_enabled = true and its name."
  }
}

variable "sie_ingress_tls_secret_name" {
  description = "Secret with the certificate, which you make."
  type        = string
  default     = "sie-tls"
  nullable    = false
}

variable "sie_auth_enabled" {
  description = "Sign-in with OIDC (auth.enabled of the chart)."
  type        = bool
  default     = false
  nullable    = false

  validation {
    condition     = !var.sie_auth_enabled || (var.sie_ingress_enabled && var.sie_ingress_host != "")
    error_message = "sie_auth_enabled is true, sie_ingress_enabled ${var.sie_ingress_enabled} and sie_ingress_host \"${var.sie_ingress_host}\". It is the ingress that asks for the sign-in: set sie_ingress_enabled = true and sie_ingress_host."
  }
}

variable "sie_auth_oidc_issuer_url" {
  description = "Address of your identity provider."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = !var.sie_auth_enabled || startswith(var.sie_auth_oidc_issuer_url, "https://")
    error_message = "sie_auth_enabled is true and sie_auth_oidc_issuer_url is \"${var.sie_auth_oidc_issuer_url}\". Give the address of your identity provider, with https://."
  }
}

variable "sie_auth_secret_name" {
  description = "Secret with the client's id, its secret and the cookie's, which you make."
  type        = string
  default     = "oauth2-proxy"
  nullable    = false
}

variable "sie_router_auth_mode" {
  description = "none, or static: routers ask for a token. An alternative to sie_auth_enabled, which wins."
  type        = string
  default     = "none"
  nullable    = false

  validation {
    condition     = contains(["none", "static"], var.sie_router_auth_mode)
    error_message = "sie_router_auth_mode is \"${var.sie_router_auth_mode}\". Use \"none\" or \"static\"."
  }
}

variable "sie_router_auth_secret_name" {
  description = "Secret with the tokens, which you make."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.sie_router_auth_mode != "static" || var.sie_router_auth_secret_name != ""
    error_message = "sie_router_auth_mode is \"static\" and sie_router_auth_secret_name is empty. Make a Secret with the key SIE_AUTH_TOKEN and name it."
  }
}
