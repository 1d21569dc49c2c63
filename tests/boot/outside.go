package boot

// Enter is a command's beginning that runs what follows it in the network where the machine's clients are, with files of
// this computer replaced for it by others: path → replacement. What it replaces must be there.
func (m *Machine) Enter(files map[string]string) []string {
	script := ""
	args := []string{}
	for path, file := range files {
		script += `mount --bind "$1" "$2"; shift 2; `
		args = append(args, file, path)
	}
	script = "set -e; " + script + `exec "$@"`
	return append([]string{"nsenter", "--net=" + m.Network(), "--", "unshare", "--mount", "sh", "-c", script, "sh"}, args...)
}
