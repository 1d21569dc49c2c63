# The appliance on Photon OS 5: installs it from its ISO with ks.json, and puts Berth onto it with the same scripts as
# on Debian. Two ways: in vSphere (vsphere-iso), or in QEMU on this machine (qemu). build.sh makes the key and the
# kickstart file, runs this, and makes the OVA of the result. Not run by us, only checked: see docs/building.md.

variable "iso" {
  type        = string
  description = "Photon's ISO: a path or URL for qemu, \"[datastore] path\" for vsphere-iso."
}

variable "iso_checksum" {
  type        = string
  default     = "none"
  description = "sha256:... as Photon publishes it."
}

variable "http" {
  type        = string
  description = "The directory with ks.json."
}

variable "payload" {
  type        = string
  description = "A tar archive with appliance/, bin/ (the programs) and doc/ (SBOM and licences)."
}

variable "key" {
  type        = string
  description = "The private SSH key, made for this build alone."
}

variable "output" {
  type        = string
  description = "A directory that does not exist, for the disk."
}

variable "version" {
  type        = string
  description = "What the programs must say that they are."
}

variable "accelerator" {
  type        = string
  default     = "tcg"
  description = "kvm where it works."
}

variable "vcenter" {
  type    = string
  default = "vcenter.example.com"
}

variable "vcenter_username" {
  type    = string
  default = "administrator@vsphere.local"
}

variable "vcenter_password" {
  type        = string
  default     = ""
  sensitive   = true
  description = "Best given as PKR_VAR_vcenter_password, so that no list of processes shows it."
}

variable "vcenter_insecure" {
  type    = bool
  default = false
}

variable "cluster" {
  type    = string
  default = "cluster"
}

variable "datastore" {
  type    = string
  default = "datastore"
}

variable "network" {
  type    = string
  default = "VM Network"
}

locals {
  # The boot loader's prompt, on BIOS and on UEFI. Photon takes a kickstart file by plain HTTP only if told so.
  arguments = "root=/dev/ram0 loglevel=3 photon.media=cdrom insecure_installation=1 ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/ks.json"
  bios      = ["<esc><wait>", "vmlinuz initrd=initrd.img ${local.arguments}<enter>"]
  uefi      = ["<esc><wait>c<wait>", "linux /isolinux/vmlinuz ${local.arguments}<enter>", "initrd /isolinux/initrd.img<enter>", "boot<enter>"]
}

source "vsphere-iso" "photon" {
  vcenter_server      = var.vcenter
  username            = var.vcenter_username
  password            = var.vcenter_password
  insecure_connection = var.vcenter_insecure
  cluster             = var.cluster
  datastore           = var.datastore

  vm_name              = "berth-build"
  vm_version           = 17
  guest_os_type        = "vmwarePhoton64Guest"
  firmware             = "efi"
  CPUs                 = 2
  RAM                  = 4096
  disk_controller_type = ["pvscsi"]
  iso_paths            = [var.iso]
  http_directory       = var.http
  boot_wait            = "5s"
  boot_command         = local.uefi

  storage {
    disk_size             = 16384
    disk_thin_provisioned = true
  }

  network_adapters {
    network      = var.network
    network_card = "vmxnet3"
  }

  communicator         = "ssh"
  ssh_username         = "root"
  ssh_private_key_file = var.key
  ssh_timeout          = "30m"
  shutdown_command     = "systemctl poweroff"

  export {
    force            = true
    output_directory = "${var.output}-exported" # made at once, and the other source wants none
  }
}

source "qemu" "photon" {
  iso_url          = var.iso
  iso_checksum     = var.iso_checksum
  disk_size        = "16384M"
  format           = "raw"
  output_directory = var.output
  vm_name          = "system.raw"

  accelerator      = var.accelerator
  machine_type     = "pc"
  disk_interface   = "virtio-scsi"
  net_device       = "virtio-net"
  cpus             = 2
  memory           = 4096
  headless         = true
  vnc_bind_address = "127.0.0.1"
  http_directory   = var.http
  boot_wait        = "5s"
  boot_command     = local.bios

  communicator         = "ssh"
  ssh_username         = "root"
  ssh_private_key_file = var.key
  ssh_timeout          = "60m"
  shutdown_command     = "systemctl poweroff"

  qemuargs = [
    # Packer would forward the port of every interface of this machine.
    ["-netdev", "user,id=user.0,hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22"],
  ]
}

build {
  sources = ["source.vsphere-iso.photon", "source.qemu.photon"]

  provisioner "file" {
    source      = var.payload
    destination = "/root/payload.tar"
  }

  provisioner "shell" {
    environment_vars = ["BERTH_VERSION=${var.version}"]
    scripts = [
      "${path.root}/../scripts/install.sh",
      "${path.root}/../scripts/verify.sh",
      "${path.root}/../scripts/clean.sh",
      "${path.root}/trim.sh",
    ]
  }
}
