# The appliance on Debian 12: boots the disk that disk.sh has made of the base tree, puts Berth onto it with the script
# that is used everywhere (appliance/install.sh), checks the result in the running machine, cleans it, and gives the
# tree back as a tar archive, which build.sh makes the OVA's disk of. In the language of Packer 1.6.6, Debian's; newer
# ones take it too, with packer/plugins/plugins.pkr.hcl beside it.
#
# Without KVM on purpose: where it is offered nested it often does not work (accelerator "tcg" runs everywhere).

variable "disk" {
  type        = string
  description = "The raw disk to boot. It lets root in with the key, and gets its address by DHCP."
}

variable "payload" {
  type        = string
  description = "A tar archive with appliance/, bin/ (the programs), doc/ (SBOM and licences) and packages (name and version)."
}

variable "tree" {
  type        = string
  description = "A raw file, large enough, that gets the tar archive of the finished tree."
}

variable "key" {
  type        = string
  description = "The private SSH key, made for this build alone."
}

variable "output" {
  type        = string
  description = "A directory that does not exist, for the disk that is worked on."
}

variable "version" {
  type        = string
  description = "What the programs must say that they are."
}

variable "cpus" {
  type    = number
  default = 2
}

variable "memory" {
  type    = number
  default = 1536
}

source "qemu" "debian" {
  disk_image       = true
  iso_url          = var.disk
  iso_checksum     = "none"
  use_backing_file = false
  disk_size        = "16384M"
  format           = "qcow2"
  output_directory = var.output
  vm_name          = "system.qcow2"

  accelerator      = "tcg"
  machine_type     = "pc"
  cpus             = var.cpus
  memory           = var.memory
  headless         = true
  vnc_bind_address = "127.0.0.1"

  communicator         = "ssh"
  ssh_username         = "root"
  ssh_private_key_file = var.key
  ssh_timeout          = "8m"
  boot_wait            = "5s"
  shutdown_command     = "systemctl poweroff"
  shutdown_timeout     = "3m"

  qemuargs = [
    ["-cpu", "max"],
    # Packer would forward the port of every interface of this machine.
    ["-netdev", "user,id=user.0,hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22"],
    ["-drive", "file={{ .OutputDir }}/{{ .Name }},if=virtio,format=qcow2,cache=unsafe,discard=unmap"],
    ["-drive", "file=${var.tree},if=virtio,format=raw,cache=unsafe"],
    ["-serial", "file:${var.tree}.serial"],
  ]
}

build {
  sources = ["source.qemu.debian"]

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
      "${path.root}/export.sh",
    ]
  }
}
