# Every option with its default. A variant's JSON may set any of them.
{ label }: {
  networking = { hostName = ""; extraHosts = ""; firewall.dropAll = false; };
  system = { stateVersion = "25.05"; nixos.version = "25.05.lab.${label}"; switch.inhibitors = { }; };
  boot.kernelParams = [ ]; # panther.keep_root: a system whose root is persistent
  boot.loader = { grub.enable = false; configurationLimit = 100; };
  pantherOS.serverImpermanence.enable = false;
  services.openssh = { enable = true; ports = [ 22 ]; extraConfig = ""; };
  services.caddy.enable = false;
  services.app = {
    enable = true;
    version = "1.0.0";
    port = 8080;
    healthy = true; # false: /healthz answers 500
    schema = 1; # of the data in /var/lib/services/app; a lower one refuses to start
    startDelay = 0;
    startFail = false;
    startHang = false;
    startTimeout = 60;
    dieAfter = 0; # seconds after a good start; nothing restarts it
    pad = 0; # MiB of incompressible data in the closure
  };
  users.users.root.openssh.authorizedKeys.keys = [ ];
  users.users.deploy.openssh.authorizedKeys.keys = [ ];
  nix.settings = { trusted-users = [ "root" ]; trusted-public-keys = [ ]; };
  fileSystems = { };
  environment.etc = { };
  systemd.services = { };
  systemd.timers = { };
  systemd.tmpfiles.rules = [ ];
  security.sudo.extraRules = [ ];
  specialisation = { }; # NAME.configuration = options
  lab = {
    kernel = { version = "6.12.1"; size = 512; }; # KiB
    activation = { sleep = 0; hang = false; fail = false; script = ""; };
    network.down = false; # a unit takes the network interface down; a system without it takes it up
    preSwitchCheck.fail = false;
    bootloader.fail = false;
    initInterface = "systemd 3"; # a different one: exit 100
    fault.exit = 0; # the switch ends with this code, its work done
  };
}
