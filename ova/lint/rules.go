package lint

// A Severity says what a finding means for whoever imports the OVA.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // some importer refuses it, or the appliance does not come up
	Warning Severity = "warning" // it is imported, but not as it was meant
)

// A Rule is something that an OVA must keep.
type Rule struct {
	ID       string
	Severity Severity
	Why      string // what happens otherwise
	Do       string // how to keep it
}

// Rules are all of them, in the order in which they are looked at.
func Rules() []Rule {
	return []Rule{
		{"tar", Error, "What is cut or damaged cannot be imported; vCenter notices only at the end of the upload.", "Copy or build the OVA again."},
		{"tar-end", Warning, "Without its end blocks an archive cannot be told from one that was cut between two files.", "Copy or build the OVA again."},
		{"tar-form", Error, "Importers read plain files in ustar. Extended headers come before the descriptor, which must be first; links and sparse files have no content.", "Make the archive with ova build, or with tar --format=ustar."},
		{"tar-gnu", Warning, "Importers that are strict about ustar refuse GNU's form.", "Make the archive with ova build, or with tar --format=ustar."},
		{"tar-order", Error, "DSP0243 wants the descriptor first, then the manifest, the certificate and the files in the order of References: importers read the archive as a stream.", "Put the files in that order."},
		{"tar-name", Error, "A name with a folder, or one that is there twice, is not found, or the wrong one is.", "Give each file a plain name of its own."},
		{"tar-extra", Warning, "A file that the descriptor does not refer to is ignored by some importers and refused by others.", "Remove it, or name it in References."},

		{"manifest", Warning, "Without a manifest vSphere cannot tell a damaged file, and says so in the form.", "Add one: a line SHA256(name)= hex for each file."},
		{"manifest-form", Error, "vSphere takes this form of a line alone: SHA256(name)= hex. It refuses \"SHA256 (name) = hex\" (sha256sum --tag) and \"SHA2-256(name)= hex\" (OpenSSL 3).", "Write the lines in that form."},
		{"manifest-sha1", Error, "The vSphere Client of 7.0 and 8.0 refuses SHA-1.", "Use SHA256."},
		{"manifest-digest", Error, "The file is not the one that the manifest was made for: the import fails after the upload.", "Make the manifest from the files as they are."},
		{"manifest-files", Error, "The manifest must name the descriptor and each file of References once, and nothing else.", "Make the manifest from the files that are there."},
		{"certificate", Error, "A signature that is wrong stops the import; none does not.", "Sign the manifest as it is, by an RSA key: SHA256(name.mf)= hex, then the certificate in PEM. Or leave the certificate out."},
		{"certificate-time", Error, "An OVA whose certificate has expired is refused.", "Sign it again by a valid certificate, or leave the certificate out."},

		{"xml", Error, "What is no well-formed descriptor, or one with a document type, is refused.", "Correct the line that is named."},
		{"schema", Error, "vSphere checks the descriptor against the schema of OVF 1.1: names, order and required elements.", "Correct the element that is named."},

		{"file-size", Error, "The size is used as the length of the upload: one that is wrong breaks it off, or lets it wait for ever.", "Write the file's size."},
		{"file-missing", Error, "An importer asks for every file of References.", "Put the file into the OVA, or remove the entry."},
		{"disk-file", Error, "vSphere makes a blank disk where there is no file; govmomi's simulator crashes, and so does what is tested with it.", "Give each disk a file; one without content takes 200 KiB."},
		{"disk-ref", Error, "A disk without an entry in DiskSection, or with a file that is not in References, cannot be made.", "Let HostResource (ovf:/disk/ID), DiskSection and References name the same things."},
		{"disk-unused", Warning, "The disk is uploaded, and then nowhere.", "Attach it, or remove it."},
		{"disk-id", Warning, "govmomi's simulator finds disks by the end of their id, and takes the wrong one.", "Choose ids of which none ends like another."},
		{"disk-format", Error, "vSphere imports streamOptimized VMDKs alone.", "Convert the disk (ova build does), and say so in ovf:format."},
		{"disk-damaged", Error, "The disk cannot be read to its end.", "Build it again."},
		{"disk-capacity", Error, "The disk in the file has another size than the descriptor says: it would be cut, or the import fails.", "Write the VMDK's capacity."},
		{"disk-tools", Warning, "vCenter shows VMware Tools as out of date or not installed, if the disk does not say that the guest looks after them.", "Set ddb.toolsVersion to 2147483647."},

		{"hardware-version", Error, "vmx-20 and later are refused by ESXi 7.0, vmx-21 by 8.0, vmx-10 and earlier by new hosts.", "Use vmx-17."},
		{"hardware-old-new", Warning, "A version before vmx-13 lacks what the appliance uses, one after vmx-17 is refused by ESXi 7.0 before an update.", "Use vmx-17."},
		{"resource-type", Error, "Devices such as SATA controllers (20) break the import in vSphere or in what tests it.", "Use CPUs, memory, SCSI, IDE, Ethernet, CD-ROM and disks alone."},
		{"item-id", Error, "Two items of one deployment option with the same InstanceID replace each other.", "Number the items."},
		{"parent", Error, "A disk or a drive without its controller is refused.", "Let Parent be the InstanceID of a controller."},
		{"address", Error, "Two devices at one place of a controller, or a disk at place 7 of SCSI, which is the controller's own, are refused.", "Give each device an AddressOnParent of its own."},
		{"controller", Warning, "The appliance is made for the paravirtual controller, and tested with it.", "Use ResourceSubType VirtualSCSI."},
		{"cdrom", Error, "The simulator and older hosts take a CD-ROM at an IDE controller alone.", "Put it there."},
		{"ethernet", Warning, "Other adapters than VmxNet3 cost throughput.", "Use ResourceSubType VmxNet3."},
		{"network", Error, "An adapter's network must be in NetworkSection, or the form offers none.", "Declare it."},
		{"element-name", Warning, "The form shows the name, the VM gets the quantity.", "Let both say the same."},
		{"guest-os", Warning, "vSphere does not know the operating system's identifier on all hosts that take the hardware version, and imports it as another.", "Use one that ESXi 7.0 knows."},
		{"firmware", Error, "Firmware is bios or efi, and secure boot needs efi.", "Correct vmw:Config."},
		{"extra-config", Warning, "The vSphere Client warns of advanced configuration options that may be a security risk, and asks for consent.", "Do without vmw:ExtraConfig."},

		{"transport", Error, "Without a transport, or with iso and no CD-ROM, the VM never sees its properties.", "Write ovf:transport=\"com.vmware.guestInfo iso\", and have a CD-ROM."},
		{"transport-one", Warning, "com.vmware.guestInfo needs VMware Tools, iso a CD-ROM that stays connected: together there is a way for each guest.", "Write ovf:transport=\"com.vmware.guestInfo iso\"."},
		{"property-key", Warning, "DSP0243 forbids \".\" and \":\" in a key: tools split the name at different places, and only vSphere forgives it.", "Use ovf:class for the part before the dot."},
		{"property-twice", Error, "Of two properties with one name only one reaches the VM.", "Rename one."},
		{"property-type", Error, "Clients refuse types, qualifiers and defaults that contradict each other: a default is one of the choices, and has at most 65,535 bytes.", "Correct the attribute."},
		{"property-boolean", Warning, "vSphere's booleans are True and False: some clients refused \"true\" as a default.", "Write True or False."},
		{"property-minlen", Warning, "MinLen(0) was shown as \"not less than\" the maximum by some clients.", "Leave MinLen(0) out, and check in the guest."},
		{"property-secret", Error, "What is secret must have ovf:password=\"true\", or everybody who may read the VM's settings reads it; and no default, which would be in every copy.", "Set ovf:password, remove the default."},
		{"property-text", Warning, "A property without a label, a description or userConfigurable cannot be filled in, or not well.", "Add what is missing."},
		{"property-ip0", Warning, "govmomi's simulator takes a property ip0 for the VM's address.", "Rename it."},
		{"property-table", Error, "The appliance asks for other properties than the form has.", "Build the descriptor with the same version of Berth."},
		{"deployment", Error, "An item or value names a deployment option that does not exist; or there are two defaults; or an option has no CPU or memory.", "Declare each option once, one as the default."},
		{"deployment-default", Warning, "DSP0243 takes the first option if none is the default; govmomi's simulator takes the items of all.", "Set ovf:default=\"true\" on one."},
		{"deployment-list", Error, "govmomi's simulator takes an item for one deployment option or for all: none for a list of options, and none that replaces another.", "Repeat the item for each option."},
		{"app-url", Warning, "A link with a property that does not exist leads nowhere.", "Correct AppUrl, or remove it."},
		{"eula", Warning, "The form has no licence to accept.", "Add an EulaSection."},
		{"product", Warning, "vCenter shows product, vendor and version of the first ProductSection.", "Fill them in."},
	}
}

// Find gives the rule of an id.
func Find(id string) (Rule, bool) {
	for _, r := range Rules() {
		if r.ID == id {
			return r, true
		}
	}
	return Rule{}, false
}
