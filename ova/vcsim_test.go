package ova_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi"
	_ "github.com/vmware/govmomi/cli/importx" // govc import.ova and import.spec
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/ovf"
	"github.com/vmware/govmomi/ovf/importer"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"berth/appliance/property"
	"berth/ova/archive"
	"berth/ova/descriptor"
)

// hostile is what people put into forms, and what has broken other appliances.
func hostile() map[string]string {
	return map[string]string{
		"network.mode":                  "static",
		"network.ip4":                   "192.0.2.10/24",
		"network.ip6":                   "2001:db8::10/64",
		"appliance.root_password":       "& < > \" ' $HOME `id` % \\ ; | ü 漢 🚢",
		"appliance.console_password":    "  spaces at both ends  ",
		"appliance.ssh_enabled":         "True",
		"appliance.ssh_authorized_keys": "ssh-ed25519 AAAA a@b\nssh-ed25519 BBBB c@d\n",
		"registry.admin_password":       "</Property><Property ovf:key=\"x\"/>",
		"tls.certificate":               "-----BEGIN CERTIFICATE-----\n" + strings.Repeat("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2\n", 980) + "-----END CERTIFICATE-----\n",
	}
}

// govc runs the real command against a simulator.
func govc(t *testing.T, url string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a panic in the simulator leaves it waiting
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], args...)
	c.Env = append(os.Environ(), "OVA_TEST_IS_GOVC=1", "GOVC_URL="+url, "GOVC_INSECURE=1", "GOVC_PERSIST_SESSION=false", "HOME="+t.TempDir())
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("govc %s: %v\n%s%s", strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}

// The OVA goes through govc import.spec and govc import.ova into vCenter's simulator, in
// each size, with values that hurt; what arrives is what was typed.
func TestImport(t *testing.T) { importAll(t, built(t), "1.2.3", 48) }

// The same with the OVA that BERTH_OVA names, the finished product: make test-ova sets it.
func TestImportFinished(t *testing.T) {
	path := os.Getenv("BERTH_OVA")
	if path == "" {
		t.Skip("BERTH_OVA names no OVA (make test-ova)")
	}
	p, err := archive.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	e, ok := p.First(".ovf")
	if !ok {
		t.Fatal("it has no descriptor")
	}
	envelope, err := ovf.Unmarshal(e.Reader())
	if err != nil {
		t.Fatal(err)
	}
	system, err := strconv.ParseInt(envelope.Disk.Disks[0].Capacity, 10, 64)
	if err != nil || envelope.Disk.Disks[0].CapacityAllocationUnits != nil && *envelope.Disk.Disks[0].CapacityAllocationUnits != "byte" {
		t.Fatalf("the system disk's capacity: %v, %+v", err, envelope.Disk.Disks[0])
	}
	importAll(t, path, envelope.VirtualSystem.Product[0].Version, system>>20)
}

// importAll imports in each size. systemMiB is the capacity of the first disk.
func importAll(t *testing.T, path, version string, systemMiB int64) {
	t.Helper()
	model := simulator.VPX()
	defer model.Remove()
	if err := model.Create(); err != nil {
		t.Fatal(err)
	}
	model.Service.TLS = new(tls.Config)
	server := model.Service.NewServer()
	defer server.Close()
	url := server.URL.String()

	var options importer.Options
	if err := json.Unmarshal([]byte(govc(t, url, "import.spec", path)), &options); err != nil {
		t.Fatal(err)
	}
	checkSpec(t, options, version)
	values := hostile()
	for i, p := range options.PropertyMapping {
		if v, ok := values[p.Key]; ok {
			options.PropertyMapping[i].Value = v
		}
	}
	client, err := govmomi.NewClient(t.Context(), server.URL, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range descriptor.Sizes() {
		options.Deployment = size.ID
		options.DiskProvisioning = "thin"
		b, err := json.Marshal(options)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "options.json")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		name := "berth-" + size.ID
		govc(t, url, "import.ova", "-options", file, "-pool", "/DC0/host/DC0_C0/Resources", "-name", name, path)
		vm, err := find.NewFinder(client.Client).VirtualMachine(t.Context(), "/DC0/vm/"+name)
		if err != nil {
			t.Fatal(err)
		}
		var got mo.VirtualMachine
		if err := vm.Properties(t.Context(), vm.Reference(), []string{"config"}, &got); err != nil {
			t.Fatal(err)
		}
		checkVM(t, got.Config, size, values, version, systemMiB)
	}
}

// checkSpec looks at what govc offers to fill in.
func checkSpec(t *testing.T, o importer.Options, version string) {
	t.Helper()
	all := property.All()
	if len(o.PropertyMapping) != len(all) {
		t.Fatalf("govc sees %d of %d properties", len(o.PropertyMapping), len(all))
	}
	for i, p := range all {
		if got := o.PropertyMapping[i]; got.Key != p.Name() || got.Value != p.Default {
			t.Errorf("property %d: %+v, want %s = %q", i, got, p.Name(), p.Default)
		}
	}
	if o.Deployment != "small" || len(o.NetworkMapping) != 1 || o.NetworkMapping[0].Name != "VM Network" || !strings.HasPrefix(o.Annotation, "Berth "+version) {
		t.Errorf("%+v", o)
	}
}

func checkVM(t *testing.T, c *types.VirtualMachineConfigInfo, size descriptor.Size, values map[string]string, version string, systemMiB int64) {
	t.Helper()
	if c.GuestId != "debian11_64Guest" || c.Version != "vmx-17" || !strings.HasPrefix(c.Annotation, "Berth "+version) {
		t.Errorf("%s %s %q", c.GuestId, c.Version, c.Annotation)
	}
	if int(c.Hardware.NumCPU) != size.CPUs || int(c.Hardware.MemoryMB) != size.MemoryMB {
		t.Errorf("%s: %d CPUs, %d MB", size.ID, c.Hardware.NumCPU, c.Hardware.MemoryMB)
	}
	var disks []int64
	kinds := map[string]int{}
	for _, d := range c.Hardware.Device {
		switch d := d.(type) {
		case *types.VirtualDisk:
			disks = append(disks, d.CapacityInKB>>10)
		case *types.ParaVirtualSCSIController:
			kinds["pvscsi"]++
		case *types.VirtualVmxnet3:
			kinds["vmxnet3"]++
		case *types.VirtualCdrom:
			kinds["cdrom"]++
		}
	}
	if len(disks) != 4 || disks[0] != systemMiB || disks[1] != 100<<10 || disks[2] != 20<<10 || disks[3] != 10<<10 {
		t.Errorf("disks of %d MiB", disks)
	}
	if kinds["pvscsi"] != 1 || kinds["vmxnet3"] != 1 || kinds["cdrom"] != 1 {
		t.Errorf("%v", kinds)
	}
	got := map[string]types.VAppPropertyInfo{}
	app := c.VAppConfig.GetVmConfigInfo()
	for _, p := range app.Property {
		got[p.ClassId+"."+p.Id] = p
	}
	for _, p := range property.All() {
		want, ok := values[p.Name()]
		if !ok {
			want = p.Default
		}
		v := got[p.Name()]
		if v.Value != want || v.Label != p.Label || v.Category == "" || v.UserConfigurable == nil || !*v.UserConfigurable {
			t.Errorf("%s arrived as %.80q (%s, %s)", p.Name(), v.Value, v.Label, v.Category)
		}
	}
	if app.Product[0].Name != "Berth" || app.Product[0].Version != version {
		t.Errorf("%+v", app.Product[0])
	}
}

// govmomi's own readers of manifests and of descriptors, in its strict mode, understand
// all of it.
func TestGovmomiReadsDescriptor(t *testing.T) {
	path := built(t)
	p, err := archive.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	imp := importer.Importer{Archive: &importer.TapeArchive{Path: path}}
	if err := imp.ReadManifest("*.ovf"); err != nil || len(imp.Manifest) != 5 || imp.Manifest["berth-data.vmdk"].Algorithm != "SHA256" {
		t.Errorf("the manifest: %v, %v", err, imp.Manifest)
	}
	e, _ := p.First(".ovf")
	envelope, err := ovf.Unmarshal(e.Reader())
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range descriptor.Sizes() {
		spec, err := envelope.ToConfigSpecWithOptions(ovf.ToConfigSpecOptions{Strict: true, DeploymentConfiguration: size.ID})
		if err != nil {
			t.Fatal(err)
		}
		if int(spec.NumCPUs) != size.CPUs || int(spec.MemoryMB) != size.MemoryMB || spec.Firmware != "efi" || spec.GuestId != "debian11_64Guest" {
			t.Errorf("%s: %d CPUs, %d MB, %s, %s", size.ID, spec.NumCPUs, spec.MemoryMB, spec.Firmware, spec.GuestId)
		}
		app := spec.VAppConfig.GetVmConfigSpec()
		if len(app.Property) != len(property.All()) {
			t.Errorf("%d properties", len(app.Property))
		}
		for i, want := range property.All() {
			info := app.Property[i].Info
			kind := string(want.Type)
			if want.Choices != nil || want.Password {
				kind = info.Type // rendered from the qualifiers
			}
			if info.ClassId != want.Class || info.Id != want.Key || info.Type != kind || info.DefaultValue != want.Default {
				t.Errorf("%s: %+v", want.Name(), info)
			}
			if want.Password != strings.HasPrefix(info.Type, "password") {
				t.Errorf("%s is of the type %s", want.Name(), info.Type)
			}
		}
	}
	v := envelope.VirtualSystem
	if len(v.Eula) != 1 || v.VirtualHardware[0].Transport == nil || *v.VirtualHardware[0].Transport != descriptor.Transport {
		t.Errorf("%+v", v.Eula)
	}
}
