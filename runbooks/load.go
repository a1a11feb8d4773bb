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

// Options says what Load reads.
type Options struct {
	Project string            // deployer.yaml or its folder; default ./deployer.yaml
	Runbook string            // path, or name of a runbook of the project or a shipped one
	Vars    map[string]string // what --var set
}

// Load reads a project and a runbook, and reports the mistakes of both at once.
func Load(o Options) (*Project, *Runbook, error) {
	p, projectErr := readProject(o.Project)
	dir := filepath.Dir(projectFile(o.Project))
	rb, runbookErr := LoadRunbook(o.Runbook, dir, o.Vars, p)
	if err := together(projectErr, runbookErr); err != nil {
		return nil, nil, err
	}
	return p, rb, nil
}

// LoadProject reads deployer.yaml; path may be its folder. Its error is *Errors.
func LoadProject(path string) (*Project, error) {
	p, err := readProject(path)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func projectFile(path string) string {
	path = cmp.Or(path, "deployer.yaml")
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, "deployer.yaml")
	}
	return path
}

// readProject gives what could be read of a file with mistakes, too: enough to
// judge a runbook by.
func readProject(path string) (*Project, error) {
	path = projectFile(path)
	data, err := os.ReadFile(path)
	s := newSource(path, data)
	if err != nil {
		s.unreadable(err, "`deployer init` writes one")
		return nil, s.err()
	}
	root := s.parse(data)
	if root == nil {
		return nil, s.err()
	}
	(&vars{src: s, used: map[string]bool{}}).fill(root)
	p := &Project{File: path, Dir: filepath.Dir(path), src: s}
	s.read(root, p)
	s.resolveOwn(p)
	return p, s.err()
}

func (s *source) unreadable(err error, hint string) {
	if errors.Is(err, fs.ErrNotExist) {
		s.wrong(Pos{File: s.file}, hint, "there is no such file")
		return
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	s.wrong(Pos{File: s.file}, "", "cannot read the file: %v", err)
}

// read puts a whole file into a value.
func (s *source) read(root *node, into any) {
	if root.shape != section {
		s.wrong(root.pos, "", "the file must be a section of keys, not %s", root.shape)
		return
	}
	s.at[place{into, ""}] = root.pos
	s.decodeStruct(root, reflect.ValueOf(into).Elem())
}

// LoadRunbook reads a runbook. A name is looked for as runbooks/NAME.yaml and
// NAME.yaml in dir, then among the shipped ones. Without a project (nil), names
// that stand for something of deployer.yaml are not looked up. Its error is
// *Errors.
func LoadRunbook(pathOrName, dir string, given map[string]string, p *Project) (*Runbook, error) {
	file, data, err := find(pathOrName, dir)
	s := newSource(file, data)
	if err != nil {
		s.unreadable(err, meant(pathOrName, known(dir)))
		return nil, s.err()
	}
	root := s.parse(data)
	if root == nil {
		return nil, s.err()
	}
	v := s.readVars(root, given)
	v.fillAll(root)
	v.unused(given)
	base := filepath.Base(strings.TrimPrefix(file, "shipped:"))
	rb := &Runbook{File: file, Name: strings.TrimSuffix(base, filepath.Ext(base)), Changed: v.changed, src: s}
	s.read(root, rb)
	rb.Vars, rb.Digest = v.values, digest(data, v.values)
	if p != nil {
		s.resolve(p)
	}
	s.order(rb)
	if err := s.err(); err != nil {
		return nil, err
	}
	return rb, nil
}

// find reads the file of a path or a name.
func find(pathOrName, dir string) (file string, data []byte, err error) {
	if strings.ContainsRune(pathOrName, '/') || filepath.Ext(pathOrName) == ".yaml" || filepath.Ext(pathOrName) == ".yml" {
		data, err = os.ReadFile(pathOrName)
		if errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(pathOrName) {
			inDir := filepath.Join(dir, pathOrName)
			if data, err := os.ReadFile(inDir); err == nil {
				return inDir, data, nil
			}
		}
		return pathOrName, data, err
	}
	for _, folder := range []string{filepath.Join(dir, "runbooks"), dir} {
		file = filepath.Join(folder, pathOrName+".yaml")
		if data, err = os.ReadFile(file); !errors.Is(err, fs.ErrNotExist) {
			return file, data, err
		}
	}
	data, err = ShippedFile(pathOrName)
	if err == nil {
		return "shipped:" + pathOrName + ".yaml", data, nil
	}
	return filepath.Join(dir, "runbooks", pathOrName+".yaml"), nil, fs.ErrNotExist
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
