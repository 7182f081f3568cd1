"""What must hold: discrete operators and equations on any mesh."""
