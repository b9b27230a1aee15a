"""Contributions (SHAP): what each feature adds to a scikit-learn model's answer. XGBoost computes its own."""
