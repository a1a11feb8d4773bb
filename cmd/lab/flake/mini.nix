# A very small stand-in for nixpkgs and the module system: the same attribute
# paths and the same toplevel layout as NixOS, so that eval, build, profiles,
# closures, generations and switch-to-configuration are exercised for real.
{ base, label }:
let
  system = "x86_64-linux";

  # The userland as one store path. Fixed output and valid already
  # (nix-store --add-fixed), so this derivation is never built.
  debian = derivation {
    inherit system;
    inherit (base) name;
    builder = "/the-userland-is-missing-run-lab-base";
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
    outputHash = base.sha256;
  };
  bb = "${debian}/usr/bin/busybox";

  # Busybox alone: its shell finds its own applets before anything in PATH.
  run = name: env: script: derivation (env // {
    inherit name system;
    builder = bb;
    args = [ "sh" "-euc" script ];
  });
  # By file, so that text can be long and can refer to other store paths.
  writeFile = name: executable: text: run name { inherit text; passAsFile = [ "text" ]; } ''
    mkdir -p $out; cp $textPath $out/${name}; ${if executable then "chmod +x $out/${name}" else ""}
  '';

  # ---- merging: attribute sets deep; lists concatenate or replace ----------
  isPlain = v: builtins.isAttrs v && !(v ? type && v.type == "derivation");
  mergeWith = onList: a: b: a // builtins.mapAttrs (n: v:
    if a ? ${n} && isPlain a.${n} && isPlain v then mergeWith onList a.${n} v
    else if a ? ${n} && builtins.isList a.${n} && builtins.isList v then onList a.${n} v
    else v) b;
  merge = mergeWith (x: y: x ++ y);
  override = mergeWith (x: y: y);

  names = builtins.attrNames;
  lines = builtins.concatStringsSep "\n";
  concatAttrs = f: set: lines (builtins.attrValues (builtins.mapAttrs f set));

  # ---- units ---------------------------------------------------------------
  str = v: if builtins.isBool v then (if v then "true" else "false") else toString v;
  section = name: attrs:
    let line = k: v: builtins.concatStringsSep "" (map (x: "${k}=${str x}\n") (if builtins.isList v then v else [ v ]));
    in if attrs == { } then "" else "[${name}]\n" + builtins.concatStringsSep "" (builtins.attrValues (builtins.mapAttrs line attrs));
  serviceText = name: s:
    section "Unit" ({ Description = s.description or name; }
      // (if s ? after then { After = builtins.concatStringsSep " " s.after; } else { })
      // (if s ? before then { Before = builtins.concatStringsSep " " s.before; } else { })
      // (if s ? requires then { Requires = builtins.concatStringsSep " " s.requires; } else { })
      // (if s ? conflicts then { Conflicts = builtins.concatStringsSep " " s.conflicts; } else { })
      // (s.unitConfig or { }))
    + section "Service" ({
      X-RestartIfChanged = s.restartIfChanged or true;
      X-StopIfChanged = s.stopIfChanged or true;
      X-ReloadIfChanged = s.reloadIfChanged or false;
      Environment = "PATH=/run/wrappers/bin:/usr/bin:/usr/sbin";
    } // (if s ? script then { ExecStart = "${writeFile "unit-script-${name}" true "#!${bb} sh\nset -e\n${s.script}"}/unit-script-${name}"; } else { })
      // (s.serviceConfig or { }));
  timerText = name: t: section "Unit" { Description = t.description or name; } + section "Timer" t.timerConfig;

  unitsOf = config:
    let
      kind = suffix: text: set: map (n: { name = "${n}.${suffix}"; wantedBy = set.${n}.wantedBy or [ ]; text = text n set.${n}; }) (names set);
      all = kind "service" serviceText config.systemd.services ++ kind "timer" timerText config.systemd.timers;
    in
    run "system-units" { } ''
      mkdir -p $out
      ${lines (map (u: "ln -s ${writeFile u.name false u.text}/${u.name} $out/${u.name}") all)}
      ${lines (builtins.concatLists (map (u: map (t: "mkdir -p $out/${t}.wants; ln -s ../${u.name} $out/${t}.wants/${u.name}") u.wantedBy) all))}
    '';

  etcOf = config: run "etc" { } ''
    mkdir -p $out/systemd
    ln -s ${unitsOf config} $out/systemd/system
    ${concatAttrs (n: f:
      let flat = builtins.replaceStrings [ "/" "@" ] [ "-" "-" ] n;
      in "mkdir -p $(dirname $out/${n}); ln -s ${writeFile flat false f.text}/${flat} $out/${n}") config.environment.etc}
  '';

  # /run/current-system/sw: the userland, and the boot loader's tools, which
  # speak to the lab's stand-in for firmware.
  swOf = config: run "system-path" { } ''
    mkdir -p $out
    for d in ${debian}/usr/*; do ln -s $d $out/; done
    rm $out/bin; mkdir $out/bin; ln -s ${debian}/usr/bin/* $out/bin/
    add() { rm -f $out/bin/$2; sed "s|@debian@|${debian}|g" $1 > $out/bin/$2; chmod +x $out/bin/$2; }
    ${if config.boot.loader.grub.enable
      then "add ${./scripts/grub-editenv.sh} grub-editenv; add ${./scripts/grub-editenv.sh} grub-reboot"
      else "add ${./scripts/bootctl.sh} bootctl"}
  '';

  # Bytes that only have to be as many and as different as a kernel's.
  kernelOf = { version, size }: run "linux-${version}" { inherit version; size = toString size; } ''
    mkdir -p $out/lib/modules/$version
    for f in ${debian}/usr/bin/python3.*; do break; done
    { echo "Linux version $version"; dd if=$f bs=1k count=$size 2>/dev/null; } > $out/bzImage
  '';
  initrdOf = { version, ... }: run "initrd-linux-${version}" { } ''
    mkdir -p $out; dd if=${bb} of=$out/initrd bs=1k count=64 2>/dev/null
  '';

  activationOf = config: let a = config.lab.activation; in ''
    ${if a.sleep > 0 then "sleep ${toString a.sleep}" else ""}
    ${if a.hang then "while :; do sleep 3600; done" else ""}
    ${a.script}
    ${if a.fail then "echo 'cannot migrate the users database' >&2; exit 1" else ""}
  '';

  toplevelOf = config: specialisations:
    let
      kernel = kernelOf config.lab.kernel;
      initrd = initrdOf config.lab.kernel;
      host = if config.networking.hostName == "" then "nixos" else config.networking.hostName;
    in
    run "nixos-system-${host}-${config.system.nixos.version}"
      {
        inherit bb debian kernel initrd;
        etc = etcOf config;
        sw = swOf config;
        activation = activationOf config;
        passAsFile = [ "activation" ];
        version = config.system.nixos.version;
        preSwitch = if config.lab.preSwitchCheck.fail then "false" else "true";
        loader = if config.lab.bootloader.fail then "fail" else if config.boot.loader.grub.enable then "grub" else "systemd-boot";
        limit = toString config.boot.loader.configurationLimit;
        kernelParams = toString config.boot.kernelParams;
        fault = toString config.lab.fault.exit;
        inhibitors = builtins.toJSON config.system.switch.inhibitors;
        initInterface = config.lab.initInterface;
      } ''
      mkdir -p $out/bin $out/specialisation
      subst() {
        sed -e "s|@out@|$out|g" -e "s|@bb@|$bb|g" -e "s|@debian@|$debian|g" -e "s|@preSwitch@|$preSwitch|g" \
          -e "s|@loader@|$loader|g" -e "s|@limit@|$limit|g" -e "s|@fault@|$fault|g" "$1"
      }
      subst ${./scripts/switch-to-configuration.sh} > $out/bin/switch-to-configuration
      subst ${./scripts/loader.sh} > $out/bin/install-boot-loader
      subst ${./scripts/init.sh} > $out/init
      subst ${./scripts/activate.sh} > act
      sed -e "/@activation@/{r $activationPath" -e "d}" act > $out/activate
      chmod +x $out/bin/* $out/init $out/activate
      ln -s $etc $out/etc
      ln -s $sw $out/sw
      ln -s $debian/usr $out/systemd
      ln -s $kernel/bzImage $out/kernel
      ln -s $kernel $out/kernel-modules
      ln -s $initrd/initrd $out/initrd
      printf %s "$version" > $out/nixos-version
      printf %s "$system" > $out/system
      printf %s "$initInterface" > $out/init-interface-version
      printf %s "$inhibitors" > $out/switch-inhibitors
      echo "console=ttyS0 root=LABEL=nixos $kernelParams" > $out/kernel-params
      ${concatAttrs (n: top: "ln -s ${top} $out/specialisation/${n}") specialisations}
      echo "{\"org.nixos.bootspec.v1\":{\"init\":\"$out/init\",\"initrd\":\"$initrd/initrd\",\"kernel\":\"$kernel/bzImage\",\"kernelParams\":[],\"label\":\"NixOS $version\",\"system\":\"$system\",\"toplevel\":\"$out\"}}" > $out/boot.json
    '';

  # ---- real modules: options with defaults, and a config from the final ones ----
  lib = {
    types = { str = null; path = null; nullOr = _: null; listOf = _: null; };
    mkOption = { default, ... }: { option = default; };
    mkEnableOption = _: { option = false; };
    mkIf = cond: content: { inherit cond content; };
    optionalAttrs = cond: set: if cond then set else { };
    literalExpression = _: null;
  };
  defaults = o: if o ? option then o.option else builtins.mapAttrs (_: defaults) o;
  off = v: builtins.isAttrs v && v ? cond && !v.cond;
  resolve = v:
    if !isPlain v then v
    else if v ? cond then resolve v.content
    else builtins.mapAttrs (_: resolve) (removeAttrs v (builtins.filter (n: off v.${n}) (names v)));
  pkgs = {
    inherit bb debian run writeFile;
    writeScript = name: text: "${writeFile name true text}/${name}";
  };

  mkSystem = { modules, variant }:
    let
      load = m: let f = if builtins.isPath m || builtins.isString m then import m else m; in
        if builtins.isFunction f then f { inherit config lib pkgs; } else f;
      loaded = map load modules;
      # What a module reads of config is what hosts and variants set.
      imported = set: map (m: import m { config = set; inherit lib pkgs; }) (builtins.concatMap (m: m.imports or [ ]) loaded);
      options = builtins.foldl' merge (import ./options.nix { inherit label; }) (map (m: defaults m.options) (imported { }));
      set = override (override options (removeAttrs (builtins.foldl' merge { } loaded) [ "imports" ])) variant;
      configOf = set:
        let full = builtins.foldl' merge set (map (m: if off m.config then { } else resolve m.config) (imported set));
        in merge (import ./services.nix { config = full; inherit bb debian run; }) full;
      special = s: toplevelOf (configOf (override set s.configuration)) { };
      built = configOf set;
      config = merge built {
        system.build = {
          toplevel = toplevelOf built (builtins.mapAttrs (_: special) set.specialisation);
          etc = etcOf built;
        };
      };
    in
    { inherit config; options = { }; };
in
{ inherit mkSystem debian run writeFile; }
