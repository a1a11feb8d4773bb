package runbooks

import (
	"cmp"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

//go:embed production.yaml
var shipped embed.FS

var phaseType = reflect.TypeFor[Phase]()

// Options says what Load reads.
type Options struct {
	Project string            // deployer.yaml or its folder; default ./deployer.yaml
	Runbook string            // path, or name of a runbook of the project or a shipped one
	Vars    map[string]string // what --var set
}

// Load reads a project and a runbook, and reports the mistakes of both at once.
// Its error is *Errors. A path is taken as it is, or from the project's folder;
// a name is looked for as runbooks/NAME.yaml and NAME.yaml there, then among the
// shipped ones.
func Load(o Options) (*Project, *Runbook, error) {
	p, ps := readProject(o.Project)
	rb, rs := readRunbook(o.Runbook, filepath.Dir(ps.file), o.Vars, p)
	if err := mistakes(ps, rs); err != nil {
		return nil, nil, err
	}
	return p, rb, nil
}

// LoadProject reads deployer.yaml; path may be its folder. Its error is *Errors.
func LoadProject(path string) (*Project, error) {
	p, s := readProject(path)
	if err := mistakes(s); err != nil {
		return nil, err
	}
	return p, nil
}

// LoadRunbook reads a runbook alone, for a project that was read already.
func LoadRunbook(pathOrName, dir string, vars map[string]string, p *Project) (*Runbook, error) {
	rb, s := readRunbook(pathOrName, dir, vars, p)
	if err := mistakes(s); err != nil {
		return nil, err
	}
	return rb, nil
}

// readProject gives what could be read of a file with mistakes, too: enough to
// judge a runbook by.
func readProject(file string) (*Project, *source) {
	file = cmp.Or(file, "deployer.yaml")
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		file = filepath.Join(file, "deployer.yaml")
	}
	data, err := os.ReadFile(file)
	s := newSource(file, data)
	if err != nil {
		s.unreadable(err, "`deployer init` writes one")
		return nil, s
	}
	root := s.parse(data)
	if root == nil {
		return nil, s
	}
	(&vars{src: s}).fill(root)
	p := &Project{File: file, Dir: filepath.Dir(file), src: s}
	s.section(root, reflect.ValueOf(p).Elem(), fields(reflect.TypeFor[Project]()))
	s.resolve(p)
	return p, s
}

func (s *source) unreadable(err error, hint string) {
	if errors.Is(err, fs.ErrNotExist) {
		s.wrong(Pos{File: s.file}, hint, "there is no such file")
	} else {
		s.wrong(Pos{File: s.file}, "", "cannot read the file: %v", err)
	}
}

func readRunbook(pathOrName, dir string, given map[string]string, p *Project) (*Runbook, *source) {
	file, data, err := find(pathOrName, dir)
	s := newSource(file, data)
	if err != nil {
		s.unreadable(err, meant(pathOrName, known(dir)))
		return nil, s
	}
	root := s.parse(data)
	if root == nil {
		return nil, s
	}
	v := s.readVars(root, given)
	v.fill(root)
	name := strings.TrimSuffix(filepath.Base(strings.TrimPrefix(file, "shipped:")), filepath.Ext(file))
	rb := &Runbook{File: file, Name: name, Changed: v.changed, src: s}
	s.section(root, reflect.ValueOf(rb).Elem(), fields(reflect.TypeFor[Runbook]()))
	rb.Vars, rb.Digest = v.values, digest(data, v.values)
	if p != nil {
		s.resolve(p)
	}
	s.order(rb)
	return rb, s
}

// find reads the file of a path or a name.
func find(pathOrName, dir string) (file string, data []byte, err error) {
	places := []string{filepath.Join(dir, "runbooks", pathOrName+".yaml"), filepath.Join(dir, pathOrName+".yaml")}
	isPath := strings.ContainsRune(pathOrName, '/') || filepath.Ext(pathOrName) != ""
	if isPath {
		places = []string{pathOrName, filepath.Join(dir, pathOrName)}
	}
	for _, file := range places {
		if data, err := os.ReadFile(file); !errors.Is(err, fs.ErrNotExist) {
			return file, data, err
		}
	}
	if data, err = ShippedFile(pathOrName); err == nil && !isPath {
		return "shipped:" + pathOrName + ".yaml", data, nil
	}
	return places[0], nil, fs.ErrNotExist
}

// known are the names of the runbooks that there are.
func known(dir string) []string {
	names := Shipped()
	files, _ := filepath.Glob(filepath.Join(dir, "runbooks", "*.yaml"))
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".yaml"))
	}
	return names
}

// Shipped names the runbooks that deployer brings along.
func Shipped() []string {
	files, _ := fs.Glob(shipped, "*.yaml")
	for i, file := range files {
		files[i] = strings.TrimSuffix(file, ".yaml")
	}
	return files
}

// ShippedFile is a shipped runbook, to start an own one from.
func ShippedFile(name string) ([]byte, error) {
	data, err := shipped.ReadFile(name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("no runbook %q is shipped: %w", name, fs.ErrNotExist)
	}
	return data, nil
}

// digest binds a run to a file and the values of its variables.
func digest(data []byte, values map[string]string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d\n%s", len(data), data)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(h, "%q=%q\n", name, values[name])
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
