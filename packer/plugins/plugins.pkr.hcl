# For Packer 1.7 and newer, which has its builders as plugins: copy this file beside the template, then `packer init`.
# Packer 1.6.6, Debian's, has them built in and refuses this block, which is why it lies here.

packer {
  required_plugins {
    qemu = {
      version = ">= 1.1.0"
      source  = "github.com/hashicorp/qemu"
    }
    vsphere = {
      version = ">= 1.4.0"
      source  = "github.com/hashicorp/vsphere"
    }
  }
}
