"""Contributions: what each feature adds to a scikit-learn model's answer (SHAP). XGBoost computes its own."""
